"""One Supabase for the whole contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.project import Project
from tests.contract.project import project as under_contract


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The Supabase under contract."""
    with under_contract(tmp_path_factory.mktemp("contract")) as found:
        yield found


@pytest.fixture(scope="session")
def token(project: Project) -> str:
    """Of the contract's user, for all that only read: sign-ins are limited."""
    session = project.client().auth.sign_in_with_password({"email": project.email, "password": project.password}).session
    assert session is not None
    return session.access_token


@pytest.fixture(autouse=True)
def _clients_closed(project: Project) -> Iterator[None]:
    yield
    project.close()
