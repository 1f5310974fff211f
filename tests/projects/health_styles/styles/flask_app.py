from flask import Flask

from styles.workers import require_consumers


def create():
    app = Flask(__name__)

    @app.get("/healthz")
    def healthz():
        try:
            return {"status": "ok", "workers": len(require_consumers())}
        except Exception as error:  # noqa: BLE001 - whatever it is
            return {"status": "error", "error": type(error).__name__}, 503

    return app
