"""Services known by name: what hosts they have and how each carries its key."""

from proxy.services.current import CurrentServices
from proxy.services.loader import ServiceError, Services, load_services
from proxy.services.model import Part, Probe, Service, Slot
from proxy.services.schema import ServiceEntry

__all__ = [
    "CurrentServices",
    "Part",
    "Probe",
    "Service",
    "ServiceEntry",
    "ServiceError",
    "Services",
    "Slot",
    "load_services",
]
