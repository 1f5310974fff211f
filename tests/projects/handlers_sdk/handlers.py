"""Every failure and every retry becomes an event."""

from types import TracebackType

from celery import signals
from reporting import client


@signals.task_failure.connect(dispatch_uid="reporting")
def report_failure(sender=None, task_id=None, exception=None, args=(), kwargs=None, traceback=None, **_):
    frames = traceback if isinstance(traceback, TracebackType) else None
    client.capture_exception(
        exception, frames, task=getattr(sender, "name", sender), task_id=task_id, args=args, kwargs=kwargs
    )


@signals.task_retry.connect(dispatch_uid="reporting")
def report_retry(request, reason=None, **_):
    client.capture_exception(
        getattr(reason, "exc", None) or reason,
        task=request.task,
        task_id=request.id,
        retries=request.retries,
        kwargs=request.kwargs,
    )


@signals.task_internal_error.connect(dispatch_uid="reporting")
def report_internal_error(exception, request=None, **_):
    client.capture_exception(exception, request=request)


@signals.task_unknown.connect(dispatch_uid="reporting")
def report_unknown(name, id, exc, **_):  # noqa: A002
    client.capture_exception(exc, task=name, task_id=id)
