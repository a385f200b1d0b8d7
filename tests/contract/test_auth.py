"""Sign-in, tokens and administration of users, by supabase-py."""

from __future__ import annotations

import secrets
import time

import httpx
import jwt
import pytest
from supabase import AuthApiError, Client

from tests.contract.project import Project

pytestmark = pytest.mark.stack
PATHS = ("/rest/v1/calls?limit=1", "/auth/v1/user")


def signed_in(project: Project) -> Client:
    """A client that has signed in as the contract's user."""
    client = project.client()
    client.auth.sign_in_with_password({"email": project.email, "password": project.password})
    return client


def test_a_password_signs_in(project: Project) -> None:
    """The session is the user's, a bearer token that runs out, and a token to renew it."""
    answer = project.client().auth.sign_in_with_password({"email": project.email, "password": project.password})

    assert answer.user is not None
    assert answer.session is not None
    assert (answer.user.email, answer.user.role, answer.user.aud) == (project.email, "authenticated", "authenticated")
    assert (answer.session.token_type, answer.session.expires_in > 0, bool(answer.session.refresh_token)) == ("bearer", True, True)


@pytest.mark.parametrize("who", ["user", "stranger"])
def test_a_wrong_password_is_refused(project: Project, who: str) -> None:
    """With the same words for an address that nobody has: it cannot be found out who has an account."""
    email = project.email if who == "user" else f"nobody-{secrets.token_hex(4)}@example.org"

    with pytest.raises(AuthApiError) as caught:
        project.client().auth.sign_in_with_password({"email": email, "password": "not the password"})
    assert (caught.value.status, caught.value.code, caught.value.message) == (400, "invalid_credentials", "Invalid login credentials")


def test_nobody_signs_up_by_themselves(project: Project) -> None:
    """Whoever is signed in reads every transcript."""
    with pytest.raises(AuthApiError) as caught:
        project.client().auth.sign_up({"email": f"new-{secrets.token_hex(4)}@example.org", "password": "long enough"})
    assert (caught.value.status, caught.value.code) == (422, "signup_disabled")


def test_the_user_of_a_session_is_known(project: Project) -> None:
    """``get_user`` asks the server, not the token."""
    found = signed_in(project).auth.get_user()

    assert found is not None
    assert found.user.email == project.email


def test_a_refresh_token_rotates(project: Project) -> None:
    """A renewed session has new tokens, and they work."""
    client = signed_in(project)
    before = client.auth.get_session()
    after = client.auth.refresh_session().session

    assert before is not None
    assert after is not None
    assert after.refresh_token != before.refresh_token
    assert after.access_token != before.access_token
    assert client.auth.get_user() is not None


def test_a_used_refresh_token_ends_its_session(project: Project) -> None:
    """After the reuse interval it can only be a stolen one: its successor is worth nothing any more, either."""
    client = signed_in(project)
    session = client.auth.get_session()
    assert session is not None
    stolen = session.refresh_token
    client.auth.refresh_session()
    client.auth.refresh_session()
    time.sleep(project.reuse_s + 0.5)

    with pytest.raises(AuthApiError) as caught:
        project.client().auth.refresh_session(stolen)
    assert (caught.value.status, caught.value.code) == (400, "refresh_token_already_used")
    with pytest.raises(AuthApiError):
        client.auth.refresh_session()


def test_an_unknown_refresh_token_is_refused(project: Project) -> None:
    """A guess is no session."""
    with pytest.raises(AuthApiError) as caught:
        project.client().auth.refresh_session("0123456789abcdef")
    assert (caught.value.status, caught.value.code) == (400, "refresh_token_not_found")


def test_signing_out_revokes(project: Project) -> None:
    """The token has not expired, and the server knows it no longer; nor is it renewed."""
    client = signed_in(project)
    session = client.auth.get_session()
    assert session is not None
    client.auth.sign_out()

    answer = httpx.get(f"{project.url}/auth/v1/user", headers=project.headers(session.access_token), trust_env=False)
    assert (answer.status_code, answer.json()["error_code"]) == (403, "session_not_found")
    with pytest.raises(AuthApiError):
        project.client().auth.refresh_session(session.refresh_token)


def test_signing_out_here_leaves_other_sessions(project: Project) -> None:
    """Scope ``local``."""
    here, elsewhere = signed_in(project), signed_in(project)
    here.auth.sign_out({"scope": "local"})

    assert elsewhere.auth.get_user() is not None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("forgery", ["expired", "foreign", "alg-none", "garbage", "tampered"])
def test_a_token_that_is_not_the_projects_is_refused(project: Project, forgery: str, path: str) -> None:
    """By every service, with the status of a refused token, never as an anonymous visitor."""
    answer = httpx.get(f"{project.url}{path}", headers=project.headers(forged(project, forgery)), trust_env=False)

    assert answer.status_code == (401 if path.startswith("/rest") else 403)


def forged(project: Project, how: str) -> str:
    """A token of a service key's role that must not be accepted."""
    if how in ("expired", "tampered") and project.jwt_secret is None:
        pytest.skip("needs the project's JWT secret")
    match how:
        case "expired":
            return project.token("service_role", lifetime_s=-60, sub="x")
        case "foreign":
            return project.token("service_role", secret="another secret, of the same length as any", sub="x")
        case "alg-none":
            return jwt.encode({"role": "service_role", "sub": "x", "exp": 4_102_444_800}, key="", algorithm="none")
        case "tampered":
            head, _, signature = project.token("anon", sub="x").split(".")
            return f"{head}.{project.token('service_role', sub='x').split('.')[1]}.{signature}"
        case _:
            return "garbage"


def test_a_users_token_is_no_service_key(project: Project) -> None:
    """A signed-in user administers nobody."""
    client = signed_in(project)
    session = client.auth.get_session()
    assert session is not None
    answer = httpx.get(f"{project.url}/auth/v1/admin/users", headers=project.headers(session.access_token), trust_env=False)

    assert (answer.status_code, answer.json()["error_code"]) == (403, "not_admin")


def test_the_anonymous_key_administers_nobody(project: Project) -> None:
    """It is in every browser."""
    with pytest.raises(AuthApiError) as caught:
        project.client().auth.admin.list_users()
    assert caught.value.status in (401, 403)


def test_users_are_administered_by_the_service_key(project: Project) -> None:
    """Made, listed, changed and deleted; a deleted one signs in no more."""
    admin = project.service().auth.admin
    email = f"made-{secrets.token_hex(4)}@example.org"
    user = admin.create_user({"email": email, "password": "the first one", "email_confirm": True, "user_metadata": {"name": "N"}}).user
    assert user.user_metadata == {"name": "N"}
    assert email in [each.email for each in admin.list_users()]

    admin.update_user_by_id(user.id, {"password": "the second one"})
    assert project.client().auth.sign_in_with_password({"email": email, "password": "the second one"}).user is not None

    admin.delete_user(user.id)
    with pytest.raises(AuthApiError):
        project.client().auth.sign_in_with_password({"email": email, "password": "the second one"})


def test_an_address_has_one_user(project: Project) -> None:
    """A second one of the same address is refused."""
    with pytest.raises(AuthApiError) as caught:
        project.service().auth.admin.create_user({"email": project.email, "password": "long enough", "email_confirm": True})
    assert (caught.value.status, caught.value.code) == (422, "email_exists")


def test_without_a_key_nothing_answers(project: Project) -> None:
    """The gateway refuses before any service is asked."""
    statuses = {path: httpx.get(f"{project.url}{path}", trust_env=False).status_code for path in PATHS}

    assert statuses == dict.fromkeys(PATHS, 401)
