"""What was called, by whom, with what success and at what price: counted, kept, told."""

from proxy.usage.keeping import usage_store
from proxy.usage.meter import Metering
from proxy.usage.prices import Price, Prices
from proxy.usage.sqlite import SqliteUsage
from proxy.usage.store import CallRow, Part, UsageError, UsageStore, UsageTooNew, Which
from proxy.usage.sums import Sums, document
from proxy.usage.usage import Usage, UsageSettings

__all__ = [
    "CallRow",
    "Metering",
    "Part",
    "Price",
    "Prices",
    "SqliteUsage",
    "Sums",
    "Usage",
    "UsageError",
    "UsageSettings",
    "UsageStore",
    "UsageTooNew",
    "Which",
    "document",
    "usage_store",
]
