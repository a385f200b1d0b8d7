"""Tokens: which are accepted, and what they say; and how often one may try."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from gateway.auth import Buckets
from gateway.tokens import TokenError, Tokens

SECRET = "a secret of at least thirty-two characters"
TOKENS = Tokens(SECRET)


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token that says so."""
    return jwt.encode({"role": "anon", **claims}, secret, algorithm=algorithm)


def test_a_token_of_the_project_says_who_it_is() -> None:
    """Role, user, session, expiry and all claims for PostgreSQL."""
    expires_at = int(time.time()) + 60  # noqa: TID251 - expiry is wall time
    claims = TOKENS.decode(signed(role="authenticated", sub="u", session_id="s", exp=expires_at))

    assert (claims.role, claims.user_id, claims.session_id, claims.expires_at) == ("authenticated", "u", "s", expires_at)
    assert '"sub":"u"' in claims.as_json


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (signed(exp=1), "PGRST303"),
        (signed(secret="another secret of thirty-two characters"), "PGRST301"),
        (signed(secret="", algorithm="none"), "PGRST301"),
        (signed(secret=SECRET * 2, algorithm="HS512"), "PGRST301"),
        (jwt.encode({"sub": "no role"}, SECRET, algorithm="HS256"), "PGRST301"),
        ("not.a.token", "PGRST301"),
        ("", "PGRST301"),
    ],
    ids=["expired", "foreign", "alg none", "another algorithm", "no role", "garbage", "empty"],
)
def test_no_other_token_is_accepted(token: str, code: str) -> None:
    """Only HS256 with the project's secret, alive, with a role."""
    with pytest.raises(TokenError) as caught:
        TOKENS.decode(token)
    assert caught.value.code == code


@pytest.mark.parametrize("header", ["", "Basic dTpw", "Bearer", "Bearer "])
def test_a_request_without_a_bearer_token_is_no_ones(header: str) -> None:
    """Nothing else in the header is taken for one."""
    with pytest.raises(TokenError) as caught:
        TOKENS.bearer({"authorization": header})
    assert caught.value.code == "PGRST302"


def test_a_bucket_empties_and_fills_again() -> None:
    """So many at once, then as fast as it fills, each address for itself."""
    buckets = Buckets(3, per_s=0.5)
    at_once = [buckets.take("a", 100.0) for _ in range(5)]

    assert at_once == [True, True, True, False, False]
    assert buckets.take("b", 100.0)
    assert [buckets.take("a", 102.0), buckets.take("a", 102.0)] == [True, False]
    assert [buckets.take("a", 1000.0) for _ in range(4)] == [True, True, True, False]
