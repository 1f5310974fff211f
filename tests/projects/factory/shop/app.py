from celery import Celery


def create_app(broker="redis://localhost:6379/0"):
    app = Celery("shop", broker=broker)

    @app.task(name="shop.pack")
    def pack(order_id):
        return order_id

    return app
