from shop.tasks import process_order


def place_order(order_id="o1"):
    process_order.delay(order_id)
