"""Application inference profiles: one tenant's names for a model and how it is served."""

import re
from collections.abc import Sequence

from twinfer.core.config import ProfileConfig
from twinfer.core.errors import UnknownModel
from twinfer.core.ids import TenantId

_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:application-inference-profile/(.+)", re.DOTALL)


def arn_of(profile: ProfileConfig, region: str, account: str) -> str:
    """Its name in requests."""
    return f"arn:aws:bedrock:{region}:{account}:application-inference-profile/{profile.id}"


def owned(profiles: Sequence[ProfileConfig], tenant: TenantId) -> tuple[ProfileConfig, ...]:
    """Those of a tenant."""
    return tuple(profile for profile in profiles if profile.tenant == tenant)


def find_profile(profiles: Sequence[ProfileConfig], name: str, tenant: TenantId) -> ProfileConfig | None:
    """The profile that a model's name means; ``None`` where it is no such ARN.

    Raises:
        UnknownModel: the tenant has none of this id; ``where`` holds the name.
    """
    arn = _ARN.fullmatch(name)
    if arn is None:
        return None
    for profile in owned(profiles, tenant):
        if profile.id == arn[1]:
            return profile
    raise UnknownModel(f"The inference profile '{name}' does not exist; list those that do.", where=name)
