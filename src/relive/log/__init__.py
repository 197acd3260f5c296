"""The durable event log: one port, three backends."""

from relive.log.port import MAX_RECORD_BYTES, Bounds, EventLog, NewRecord, Record
from relive.log.prefix import LogPrefix, log_now
from relive.log.share import LogShare, log_share, parsed_partitions
from relive.log.url import open_log

__all__ = [
    "MAX_RECORD_BYTES",
    "Bounds",
    "EventLog",
    "LogPrefix",
    "LogShare",
    "NewRecord",
    "Record",
    "log_now",
    "log_share",
    "open_log",
    "parsed_partitions",
]
