from tests.identity.conftest import place, postgres

__all__ = ["place", "postgres"]
