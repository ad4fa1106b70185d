"""The models that a caller may choose: what is known of them, and what the plan allows."""

from decimal import Decimal

from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


async def test_models_are_listed_with_prices_and_abilities(member: ApiUser, stack: Stack) -> None:
    response = await member.request("GET", "/models")

    assert response.status_code == 200
    body = response.json()
    assert body["meta"]["nextCursor"] is None
    models = {model["id"]: model for model in body["data"]}
    assert list(models) == list(stack.settings.models)
    (default,) = [model["id"] for model in body["data"] if model["isDefault"]]
    assert default == stack.settings.default_model
    opus = models["claude-opus-5-5"]
    assert (opus["provider"], opus["name"]) == ("anthropic", "Claude Opus 5.5")
    assert opus["contextWindow"] == 1_000_000
    assert opus["maxOutputTokens"] == stack.settings.max_output_tokens
    assert {name: Decimal(price) for name, price in opus["prices"].items()} == {
        "input": 4,
        "output": 20,
        "cacheRead": Decimal("0.2"),
        "cacheWrite": 5,
    }
    names = ("tools", "images", "pdf", "thinking", "structured")
    assert opus["abilities"] == {
        **dict.fromkeys(names, True),
        "thinkingOff": False,
        "temperature": False,
    }


async def test_a_plan_and_a_preference_decide_which_models_are_listed(
    member: ApiUser, stack: Stack
) -> None:
    admin = await stack.sign_up_admin()
    allowed = ["claude-sonnet-5-5", "claude-opus-5-5"]
    body = {"name": unique("plan"), "entitlements": {"models": allowed}}
    plan = (await admin.request("POST", "/admin/plans", json=body)).json()["data"]["id"]
    path = f"/admin/users/{member.id}/subscription"
    assert (await admin.request("PUT", path, json={"planId": plan})).status_code == 200
    preferred = {"defaultModel": "claude-opus-5-5"}
    await member.request("PUT", "/users/me/preferences", json=preferred)

    models = (await member.request("GET", "/models")).json()["data"]

    assert {model["id"]: model["isDefault"] for model in models} == {
        "claude-sonnet-5-5": False,
        "claude-opus-5-5": True,
    }
