"""The durable event log: one port, three backends."""

from relive.log.port import MAX_RECORD_BYTES, Bounds, EventLog, NewRecord, Record
from relive.log.url import open_log

__all__ = ["MAX_RECORD_BYTES", "Bounds", "EventLog", "NewRecord", "Record", "open_log"]
