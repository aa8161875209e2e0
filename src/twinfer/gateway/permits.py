"""The served models as one caller may use them by one action."""

from collections.abc import Iterator

from twinfer.gateway.auth import permit
from twinfer.gateway.models import Models, ServedModel
from twinfer.identity.principal import Principal


class PermittedModels:
    """Finds no model that the caller may not use, and lists none."""

    def __init__(self, models: Models, principal: Principal, action: str) -> None:
        self._models = models
        self._principal = principal
        self._action = action

    def __iter__(self) -> Iterator[ServedModel]:
        policy = self._principal.policy
        return (model for model in self._models if policy.allows(self._action, model.id))

    def find(self, name: str) -> ServedModel:
        """The model meant by a name.

        Raises:
            UnknownModel: there is none.
            Forbidden: it is not the caller's to use.
        """
        model = self._models.find(name)
        permit(self._principal, self._action, model.id)
        return model
