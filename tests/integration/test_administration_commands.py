"""`everturn admin`, as an administrator types it, against the real API."""

import re
from pathlib import Path
from uuid import UUID

import pytest

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.administration import Terminal, printed
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import STANDARD, make_plan
from tests.fixtures.stack import Stack
from tests.fixtures.tool_settings import changed_settings


@pytest.fixture
def terminal(stack: Stack, admin: ApiUser, tmp_path: Path) -> Terminal:
    return Terminal(stack.origin, tmp_path, admin)


async def test_users_are_found_shown_and_changed(terminal: Terminal, user: ApiUser) -> None:
    found = await terminal.json("users", "--search", user.email)
    shown = await terminal.run("user", user.email)
    changed = await terminal.json("user", user.id, "--status", "disabled")

    assert [row["id"] for row in found] == [user.id]
    assert shown.exit_code == 0
    assert user.email in shown.stdout
    assert changed["status"] == "disabled"
    assert (await user.request("GET", "/auth/me")).status_code == 401


async def test_a_list_continues_after_its_first_page(
    terminal: Terminal, admin: ApiUser, user: ApiUser
) -> None:
    for _ in range(3):
        await user.request("DELETE", f"/chats/{await user.create_chat()}")

    entries = await terminal.json("audit", "--actor", user.id, "--action", "chat.deleted")
    two = await terminal.json(
        "audit", "--actor", user.id, "--action", "chat.deleted", "--limit", "2"
    )

    assert len(entries) == 3
    assert two == entries[:2]


async def test_a_plan_is_assigned_by_name(
    terminal: Terminal, admin: ApiUser, user: ApiUser
) -> None:
    plan = await make_plan(admin)

    given = await terminal.json("subscribe", user.email, plan["name"].upper())
    plans = await terminal.run("plans", "list", "--limit", "1000")

    assert (given["userId"], given["planId"]) == (user.id, plan["id"])
    assert plan["name"] in plans.stdout
    assert STANDARD in plans.stdout


async def test_budgets_of_a_user_and_of_the_server_are_set_shown_and_removed(
    terminal: Terminal, admin: ApiUser, user: ApiUser
) -> None:
    plans = await terminal.json("budget", "show", user.email)
    own = await terminal.json("budget", "set", user.email, "--day", "2.50", "--month-tokens", "9")
    shown = await terminal.json("budget", "show", user.email)
    removed = await terminal.run("budget", "remove", user.email)
    after = await terminal.json("budget", "show", user.id)
    server = await terminal.json("budget", "set", "--month", "1000000")
    lifted = await terminal.run("budget", "remove")
    nothing = await terminal.run("budget", "set", user.email)

    assert (plans["source"], own["source"], after["source"]) == ("plan", "user", "plan")
    assert (own["dailyBudgetUsd"], own["budgetTokens"], own["budgetUsd"]) == ("2.5", 9, None)
    assert shown == own
    assert (removed.exit_code, lifted.exit_code) == (0, 0)
    assert server["budgetUsd"] == "1000000"
    assert (await admin.request("GET", "/admin/budget")).json()["data"]["budgetUsd"] is None
    assert nothing.exit_code == 2
    assert "pass at least one limit" in nothing.stderr


async def test_a_tool_is_decided_about_and_tried(terminal: Terminal, admin: ApiUser) -> None:
    async with changed_settings(admin, "calculator", enabled=True):
        off = await terminal.json("tool", "calculator", "--off", "--approval", "ask")
        on = await terminal.json("tool", "calculator", "--on", "--approval", "auto")
        shown = await terminal.json("tool", "calculator")
    tried = await terminal.json("tool-test", "calculator", '{"expression": "6*7"}')
    failed = await terminal.run("tool-test", "calculator", '{"expression": "6*"}')
    listed = await terminal.run("tools")

    assert (off["enabled"], off["approval"]) == (False, "ask")
    assert (on["enabled"], on["approval"]) == (True, "auto")
    assert shown == on
    assert (tried["output"], tried["isError"]) == ("42", False)
    assert failed.exit_code == 1
    assert "calculator" in listed.stdout


async def test_servers_are_added_listed_refreshed_and_removed(terminal: Terminal) -> None:
    name = f"s{unique()[-8:]}"

    added = await terminal.json(
        "mcp-servers", "add", name, "--env", "TOKEN=a=b", "--", "/does/not", "--exist"
    )
    refreshed = await terminal.json("mcp-servers", "refresh", name)
    listed = await terminal.run("mcp-servers", "list")
    removed = await terminal.run("mcp-servers", "remove", name)

    assert (added["command"], added["args"]) == ("/does/not", ["--exist"])
    assert added["secretNames"] == ["TOKEN"]
    assert refreshed["status"] == "failing"
    assert name in listed.stdout
    assert (removed.exit_code, printed(removed)) == (0, "")
    assert name not in {row["name"] for row in await terminal.json("mcp-servers", "list")}


async def test_a_workflow_tool_is_added_with_a_secret_of_the_environment(
    terminal: Terminal,
) -> None:
    name, secret = f"t{unique()[-8:]}", "a secret of the environment"

    added = await terminal.run(
        *("workflow-tools", "add", name, "https://example.com/hook"),
        *("--description", "Opens a ticket.", "--approval", "ask"),
        env={"EVERTURN_TOOL_SECRET": secret},
    )
    listed = await terminal.json("workflow-tools", "list")
    removed = await terminal.run("workflow-tools", "remove", name)

    assert added.exit_code == 0, added.output
    assert secret not in added.output
    assert [row["approval"] for row in listed if row["name"] == name] == ["ask"]
    assert removed.exit_code == 0


async def test_usage_is_added_up(terminal: Terminal, user: ApiUser, stack: Stack) -> None:
    await answered(user, stack)

    rows = await terminal.json("usage", "--by", "user", "--limit", "1000")
    table = await terminal.run("usage", "--by", "model")

    assert user.id in {row["userId"] for row in rows}
    assert table.exit_code == 0
    assert "claude" in table.stdout


async def test_a_turn_is_listed_shown_stopped_and_run_again(
    terminal: Terminal, user: ApiUser, stack: Stack
) -> None:
    question = unique()
    turn = await answered(user, stack, question)

    listed = await terminal.json("turns", "--user", user.email)
    shown = await terminal.run("turn", turn)
    stopped = await terminal.json("cancel", turn)
    again = await terminal.json("rerun", turn)

    assert [row["id"] for row in listed] == [turn]
    assert question in shown.stdout
    assert "ledger" in shown.stdout
    assert printed(shown).startswith("completed\n")
    assert re.search(rf"{user.email} asked \S+ at .* [1-9][0-9,]* tokens in", shown.stdout)
    assert stopped["status"] == "completed"
    assert again["regenerates"] == turn
    await user.events(again["id"])


async def test_the_latest_turn_of_a_user_says_why_it_failed_and_what_was_slow(
    terminal: Terminal, user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6 *"})
    stack.model.add(Script(match=question, status=529))
    stack.model.add(Script(match=question, text="Let me see.", tool_calls=(call,)))
    stack.model.add(Script(match=question, status=400, message="No."))
    await answered(other_user, stack, unique())
    events = await user.events_of(await user.create_chat(), question)
    turn = events[0].data["turnId"]

    shown = await terminal.run("turn", "--user", user.email)
    failed = await terminal.json("turn", "--user", user.email, "--status", "failed")
    none = await terminal.run("turn", "--user", user.email, "--status", "cancelled")
    both = await terminal.run("turn", turn, "--status", "failed")

    why, who, attempts, tool, took, *_ = printed(shown).splitlines()
    assert why == "failed · MODEL_REJECTED: The model provider rejected the request."
    assert who.startswith(f"{user.email} asked claude-haiku-5-5 at 20")
    assert attempts == "• 2 of 3 model attempts failed (claude-haiku-5-5)"
    assert tool.startswith("• calculator failed in step 1: ")
    # Only what took a good part of the time is named after it.
    assert re.match(r"It took [0-9.]+ s(\.|: [0-9.]+ s )", took)
    for part in ("model call 1.2 · claude-haiku-5-5", "calculator · step 1", "prompt ", "system "):
        assert part in shown.stdout
    assert f"turn_id {turn}, request_id " in shown.stdout
    assert f"turn-{turn}" in shown.stdout
    assert failed["turn"]["id"] == turn
    assert (none.exit_code, none.stderr) == (1, "No turn matches.\n")
    assert both.exit_code == 2


async def test_a_turn_that_waits_for_approval_says_so_during_and_after_with_what_it_cost(
    terminal: Terminal, admin: ApiUser, user: ApiUser, stack: Stack
) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6*7"})
    stack.model.add(Script(match=question, text="Let me see.", tool_calls=(call,)))
    waiting = "waiting for approval of calculator · step 1"
    async with changed_settings(admin, "calculator", approval="ask"):
        async with user.stream(await user.create_chat(), question) as stream:
            await stream.until(lambda event: event.data.get("status") == "awaiting_approval")
            during = await terminal.run("turn", stream.turn_id)
            await user.request("POST", f"/turns/{stream.turn_id}/cancel")
            await stream.all()
        after = await terminal.run("turn", stream.turn_id)

    why, who, now, *_ = printed(during).splitlines()
    assert why == "awaiting approval"
    assert re.search(
        r"[1-9][0-9,]* tokens in, [1-9]\d* out, \d+ cached: 0\.\d*[1-9] USD so far", who
    )
    assert now.startswith(f"• Now: {waiting}, since ")
    assert printed(after).startswith("cancelled\n")
    assert waiting in after.stdout
    assert "so far" not in after.stdout


async def test_the_inputs_of_tool_calls_are_shown(
    terminal: Terminal, user: ApiUser, stack: Stack
) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6*7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Done."))
    answer = await user.ask(await user.create_chat(), question)

    shown = await terminal.run("turn", answer["turn"]["id"])

    assert '{"expression": "6*7"}' in shown.stdout


async def test_plans_are_created_shown_and_updated(terminal: Terminal) -> None:
    name = unique("plan")

    created = await terminal.json(
        *("plans", "create", name, "--entitlements", '{"budgetUsd": "5", "maxMemories": 7}')
    )
    updated = await terminal.json("plans", "update", name, "--description", "Old", "--inactive")
    shown = await terminal.json("plans", "show", name)
    nothing = await terminal.run("plans", "update", name)

    assert created["entitlements"]["budgetUsd"] == "5"
    assert created["entitlements"]["maxMemories"] == 7
    assert (updated["description"], updated["active"]) == ("Old", False)
    assert shown == updated
    assert nothing.exit_code == 2


async def test_prompts_are_written_listed_and_activated(terminal: Terminal, tmp_path: Path) -> None:
    name, text = f"p{unique()[-12:]}", tmp_path / "prompt.txt"
    text.write_text("Answer briefly.")

    created = await terminal.json("prompts", "create", name, "--file", str(text))
    text.write_text("Answer at length.")
    version = await terminal.json("prompts", "update", name, "--file", str(text), "--note", "More")
    activated = await terminal.json("prompts", "activate", name, "1")
    shown = await terminal.run("prompts", "show", name)
    versions = await terminal.json("prompts", "versions", name)
    listed = await terminal.json("prompts", "list", "--limit", "1000")
    missing = await terminal.run("prompts", "create", "x", "--file", str(tmp_path / "none"))

    assert (created["latestVersion"], version["number"]) == (1, 2)
    assert activated["activeVersion"] == 1
    assert "Answer at length." in shown.stdout
    assert [row["note"] for row in versions] == ["More", ""]
    assert name in {row["name"] for row in listed}
    assert missing.exit_code == 2


async def test_documents_of_all_users_are_listed_and_unpublished(
    terminal: Terminal, user: ApiUser
) -> None:
    body = {"title": unique("document"), "content": "It closes at dusk."}
    document = await user.request("POST", "/knowledge", json=body)

    listed = await terminal.json("knowledge", "list", "--user", user.email)
    unpublished = await terminal.json("knowledge", "unpublish", listed[0]["id"])

    assert [row["id"] for row in listed] == [document.json()["data"]["id"]]
    assert unpublished["status"] == "draft"


async def test_feedback_of_a_user_is_listed(
    terminal: Terminal, user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    answer = await user.ask(await user.create_chat(), question)
    path = f"/messages/{answer['assistantMessage']['id']}/feedback"
    await user.request("PUT", path, json={"rating": "down", "text": "No."})

    (row,) = await terminal.json("feedback", "--user", user.email, "--rating", "down")
    none = await terminal.json("feedback", "--user", user.email, "--rating", "up")

    assert (row["turnId"], row["text"], none) == (answer["turn"]["id"], "No.", [])


async def test_alerts_are_filtered_by_user_and_severity(
    terminal: Terminal, user: ApiUser, stack: Stack
) -> None:
    await stack.inspection.execute(
        "INSERT INTO alerts (id, kind, severity, user_id, details) "
        "VALUES (gen_random_uuid(), 'budget.reached', 'warning', $1, '{\"percent\": 80}')",
        UUID(user.id),
    )

    found = await terminal.json("alerts", "--user", user.email, "--severity", "warning")
    none = await terminal.json("alerts", "--user", user.email, "--severity", "critical")
    table = await terminal.run("alerts", "--user", user.email)

    assert [row["kind"] for row in found] == ["budget.reached"]
    assert none == []
    assert '{"percent": 80}' in table.stdout


async def answered(user: ApiUser, stack: Stack, question: str | None = None) -> str:
    question = question or unique()
    stack.model.add(Script(match=question, text="Yes."))
    return str((await user.ask(await user.create_chat(), question))["turn"]["id"])


async def test_api_errors_are_printed_verbatim(
    terminal: Terminal, user: ApiUser, stack: Stack, tmp_path: Path
) -> None:
    missing = await terminal.run("turn", "0190b5a8-0000-7000-8000-000000000000")
    nobody = await terminal.run("user", "nobody@example.com")
    unlisted = await terminal.run("tool", "no-such-tool")
    plain = await Terminal(stack.origin, tmp_path / "other", user).run("users")
    nowhere = await Terminal("http://127.0.0.1:1", tmp_path, user).run("users")

    results = (missing, nobody, unlisted, plain, nowhere)
    assert [result.exit_code for result in results] == [1] * 5
    assert "Turn not found." in missing.stderr
    assert "No user has the email nobody@example.com." in nobody.stderr
    assert "Tool no-such-tool not found." in unlisted.stderr
    assert "Missing permission: `admin:read`." in plain.stderr
    assert "Can't reach http://127.0.0.1:1." in nowhere.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("tool-test", "calculator", "{"),
        ("tool-test", "calculator", "[" * 100_000),
        ("tool-test", "calculator", "7"),
        ("mcp-servers", "add", "s"),
        ("mcp-servers", "add", "s", "--url", "http://x", "--", "run"),
        ("mcp-servers", "add", "s", "--env", "TOKEN", "--", "run"),
        ("users", "--limit", "0"),
    ],
)
async def test_words_that_make_no_sense_are_refused_before_anything_is_sent(
    tmp_path: Path, user: ApiUser, words: tuple[str, ...]
) -> None:
    result = await Terminal("http://127.0.0.1:1", tmp_path, user).run(*words)

    assert result.exit_code == 2


async def test_names_that_would_move_the_cursor_are_shown_as_they_are(
    terminal: Terminal, user: ApiUser
) -> None:
    name = "[red]\x1b[2J\x07end"
    assert (await user.request("PATCH", "/users/me", json={"displayName": name})).status_code == 200

    shown = await terminal.run("users", "--search", user.email)

    assert "[red]" in shown.stdout
    assert "\x1b" not in shown.stdout
