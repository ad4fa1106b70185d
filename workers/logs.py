"""Logs of processes: JSON for machines, or lines for people, from one pipeline."""

import logging
import sys
import traceback

import structlog

from services.settings import Settings

_QUIET = (
    *("asyncio", "httpcore", "httpcore2", "httpx", "httpx2"),
    *("temporalio.activity", "temporalio.workflow"),
)
_NONDETERMINISM = "[TMPRL1100]"
_log = structlog.get_logger(__name__)
# MCP servers control how often these libraries log, and what.
_SILENT = ("client", "mcp")

# Messages of exceptions may quote what a person or a model wrote. Those of our own never do.
_OURS = ("activities.", "api.", "schema.", "services.", "workers.", "workflows.")


def describe_exception(exc_info: structlog.typing.ExcInfo) -> str:
    """Return where an exception came from and its types, without messages of others."""
    lines: list[str] = []
    error: BaseException | None = exc_info[1]
    while error is not None:
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        lines.append(_headline(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if error is not None:
            lines.append("caused by:")
    return "\n".join(lines)


def _headline(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    is_safe = isinstance(error, OSError) or type(error).__module__.startswith(_OURS)
    return f"{name}: {error}" if is_safe else name


_FORMAT_EXCEPTIONS = structlog.processors.ExceptionRenderer(describe_exception)


def configure_logs(settings: Settings) -> None:
    """Send everything, the libraries' own logs included, to standard output."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            _FORMAT_EXCEPTIONS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(settings),
            ],
            foreign_pre_chain=[*shared, _FORMAT_EXCEPTIONS],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("temporalio.activity").addFilter(_is_news)
    logging.getLogger("temporalio.core").addFilter(_is_not_about_histories)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether our own activities have not logged this failure already, without its traceback."""
    return getattr(record, "__temporal_error_identifier", None) != "ActivityFailure"


def _is_not_about_histories(record: logging.LogRecord) -> bool:
    """Log in one line what the SDK says at length of a history that this code can't follow."""
    if _NONDETERMINISM not in record.getMessage():
        return True
    fields = getattr(record, "temporal_log", None)
    _log.error(
        "workflow_history_not_followed",
        run_id=getattr(fields, "fields", {}).get("run_id"),
        hint="Other code wrote it. Start or promote the version that did; docs/deploys.md",
    )
    return False


def _renderer(settings: Settings) -> structlog.types.Processor:
    if settings.log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=28)
