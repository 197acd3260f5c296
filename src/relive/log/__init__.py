"""The durable event log: one port, three backends."""

from relive.log.port import MAX_RECORD_BYTES, Bounds, EventLog, NewRecord, Record
from relive.log.prefix import LogPrefix, log_now
from relive.log.url import open_log

__all__ = [
    "MAX_RECORD_BYTES",
    "Bounds",
    "EventLog",
    "LogPrefix",
    "NewRecord",
    "Record",
    "log_now",
    "open_log",
]
