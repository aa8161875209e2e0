"""Who is calling. Open loopback has one tenant; authentication will replace this function and nothing else."""

from starlette.datastructures import Headers

from twinfer.core.ids import TenantId

OPEN_TENANT = TenantId("default")


def tenant_of(headers: Headers) -> TenantId:
    """The account whose request this is; what a client writes about itself does not count."""
    return OPEN_TENANT
