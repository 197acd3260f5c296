"""Search and sampling over a log: views, engine, and the RPC service."""

from relive.index_service.accelerator import GpuOptions
from relive.index_service.engine import Engine
from relive.index_service.indexing import ListOptions
from relive.index_service.projections import IndexOptions

__all__ = ["Engine", "GpuOptions", "IndexOptions", "ListOptions"]
