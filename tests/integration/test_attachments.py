"""Attachments in messages: what the model gets of them, now and in later turns."""

from base64 import b64decode
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

from PIL import Image

from tests.fakes.mcp_server import serving_mcp
from tests.fakes.mcp_tools import png
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.documents import pdf
from tests.fixtures.images import encoded, noise
from tests.fixtures.stack import Stack
from tests.integration.test_files import uploaded


async def asked(
    stack: Stack, user: ApiUser, chat: str, *, attachments: list[str] | None = None
) -> list[dict[str, Any]]:
    """Send a message, and return the messages that the model was sent."""
    question = unique()
    stack.model.add(Script(match=question, text="I see."))
    body: dict[str, Any] = {"content": question, "attachments": attachments or []}
    response = await user.request("POST", f"/chats/{chat}/messages", json=body)
    assert response.json()["data"]["turn"]["status"] == "completed", response.text
    request = await stack.model.wait_for_request(match=question)
    assert request.body is not None
    messages: list[dict[str, Any]] = request.body["messages"]
    return messages


def without_marks(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **message,
            "content": [
                {name: value for name, value in block.items() if name != "cache_control"}
                for block in message["content"]
            ],
        }
        for message in messages
    ]


async def test_images_pdfs_and_texts_reach_the_model_and_stay_the_same_in_later_turns(
    stack: Stack, user: ApiUser
) -> None:
    photo, document = encoded(noise(900, 700), "PNG"), pdf("Page one")
    files = [
        await uploaded(user, photo, name="photo.png"),
        await uploaded(user, document, name="paper.pdf"),
        await uploaded(user, b"The word is tangerine.", name="note.txt"),
    ]
    chat = await user.create_chat()

    [message] = await asked(stack, user, chat, attachments=[file["id"] for file in files])

    label, image, paper, note, question = message["content"]
    assert label["text"] == 'The image "photo.png":'
    sent = Image.open(BytesIO(b64decode(image["source"]["data"], validate=True)))
    assert (sent.size, f"image/{str(sent.format).lower()}") == (
        (900, 700),
        image["source"]["media_type"],
    )
    assert (paper["type"], paper["title"]) == ("document", "paper.pdf")
    assert b64decode(paper["source"]["data"], validate=True) == document
    assert note["text"] == '<attachment name="note.txt">\nThe word is tangerine.\n</attachment>'
    assert question["text"].startswith("question")
    later = await asked(stack, user, chat)
    assert without_marks(later)[:1] == without_marks([message])
    shown = (await user.messages(chat))[0]["parts"]
    assert [(part["type"], part.get("name"), part.get("deleted")) for part in shown] == [
        ("attachment", "photo.png", False),
        ("attachment", "paper.pdf", False),
        ("attachment", "note.txt", False),
        ("text", None, None),
    ]


async def test_a_photo_needs_no_text(stack: Stack, user: ApiUser) -> None:
    file = await uploaded(user, encoded(noise(9, 9), "PNG"), name="photo.png")
    chat, blank = await user.create_chat(), " "
    stack.model.add(Script(match='The image "photo.png":', text="I see noise."))
    body = {"content": blank, "attachments": [file["id"]]}

    answer = await user.request("POST", f"/chats/{chat}/messages", json=body)

    assert answer.json()["data"]["turn"]["status"] == "completed", answer.text
    first = await asked(stack, user, chat)
    assert [block["type"] for block in first[0]["content"]] == ["text", "image"]
    assert [message["role"] for message in first] == ["user", "assistant", "user"]
    parts = (await user.messages(chat))[0]["parts"]
    assert [part["type"] for part in parts] == ["attachment", "text"]
    for content in ("", blank):
        refused = await user.request(
            "POST", f"/chats/{chat}/messages", json={"content": content, "attachments": []}
        )
        assert refused.json()["error"]["details"] == [
            {"path": "body.content", "message": "Must not be blank."}
        ]


async def test_attachments_are_copied_with_a_branch_and_outlive_the_chat(
    stack: Stack, user: ApiUser
) -> None:
    data = encoded(noise(9, 9), "PNG")
    file = await uploaded(user, data, name="photo.png")
    chat = await user.create_chat()
    [before] = await asked(stack, user, chat, attachments=[file["id"]])
    copy = (await user.request("POST", f"/chats/{chat}/fork", json={})).json()["data"]["id"]

    await user.request("DELETE", f"/chats/{chat}")

    content = await user.request("GET", f"/files/{file['id']}/content")
    assert (content.status_code, content.content) == (200, data)
    shown = (await user.messages(copy))[0]["parts"][0]
    assert (shown["fileId"], shown["name"], shown["deleted"]) == (file["id"], "photo.png", False)
    later = await asked(stack, user, copy)
    assert without_marks(later)[:1] == without_marks([before])
    await user.request("DELETE", f"/chats/{copy}")
    assert (await user.request("GET", "/files")).json()["data"] == []


async def test_a_deleted_file_is_named_as_deleted_and_refused_in_new_messages(
    stack: Stack, user: ApiUser, other_user: ApiUser
) -> None:
    file = await uploaded(user, encoded(noise(9, 9), "PNG"))
    theirs = await uploaded(other_user, b"theirs")
    chat = await user.create_chat()
    await asked(stack, user, chat, attachments=[file["id"]])

    assert (await user.request("DELETE", f"/files/{file['id']}")).status_code == 204

    later = await asked(stack, user, chat)
    assert later[0]["content"][0]["text"] == "[attachment deleted]"
    assert (await user.messages(chat))[0]["parts"][0]["deleted"] is True
    for missing in (file["id"], theirs["id"]):
        refused = await user.request(
            "POST", f"/chats/{chat}/messages", json={"content": "x", "attachments": [missing]}
        )
        assert refused.json()["error"]["details"] == [
            {"path": "body.attachments.0", "message": "File not found."}
        ]
    assert len(await user.messages(chat)) == 4


async def test_a_file_goes_with_the_last_message_that_has_it(stack: Stack, user: ApiUser) -> None:
    file, shared = await uploaded(user, b"one"), await uploaded(user, b"two")
    first, second = await user.create_chat(), await user.create_chat()
    await asked(stack, user, first, attachments=[file["id"], shared["id"]])
    await asked(stack, user, second, attachments=[shared["id"]])

    await user.request("DELETE", f"/chats/{first}")

    kept = (await user.request("GET", "/files")).json()["data"]
    assert [each["id"] for each in kept] == [shared["id"]]
    await user.request("DELETE", f"/chats/{second}")
    assert (await user.request("GET", "/files")).json()["data"] == []
    owned = "SELECT count(*) FROM file_pieces WHERE user_id = $1"
    assert await stack.inspection.value(owned, UUID(user.id)) == 0


async def test_a_content_that_is_gone_is_left_out_and_the_chat_goes_on(
    stack: Stack, user: ApiUser
) -> None:
    file = await uploaded(user, encoded(noise(9, 9), "PNG"), name="lost.png")
    await stack.inspection.execute(
        "DELETE FROM file_pieces WHERE file_id = $1 AND variant = 'model'", UUID(file["id"])
    )

    [message] = await asked(stack, user, await user.create_chat(), attachments=[file["id"]])

    assert message["content"][0]["text"] == "[attachment left out: lost.png]"


async def test_an_image_of_a_tool_reaches_the_model_and_its_user_until_they_are_gone(
    stack: Stack, user: ApiUser, admin: ApiUser
) -> None:
    question, name, chat = unique(), f"s{uuid4().hex[:12]}", await user.create_chat()
    async with serving_mcp("tools") as served:
        server = {"name": name, "transport": "http", "url": served.url}
        registered = await admin.request("POST", "/admin/mcp-servers", json=server)
        assert registered.status_code == 201, registered.text
        refreshed = await admin.request("POST", f"/admin/mcp-servers/{name}/refresh")
        assert refreshed.status_code == 200, refreshed.text
        call = ToolCall(name=f"{name}__show", input={}, id="show")
        stack.model.add(Script(match=question, tool_calls=(call,)))
        stack.model.add(Script(match=question, text="A grey square."))

        answer = await user.ask(chat, question)

        await admin.request("DELETE", f"/admin/mcp-servers/{name}")
    *_, last = stack.model.requests_matching(question)
    assert last.body is not None
    (result,) = last.body["messages"][-1]["content"]
    image = next(block for block in result["content"] if block["type"] == "image")
    assert Image.open(BytesIO(b64decode(image["source"]["data"], validate=True))).size == (2, 2)
    shown = answer["assistantMessage"]["parts"][0]["attachments"]
    assert [(each["contentType"], each["deleted"]) for each in shown] == [("image/png", False)]
    path = f"/files/{shown[0]['fileId']}/content"
    assert (await user.request("GET", path)).content == png()
    later = await asked(stack, user, chat)
    assert not any(block["type"] == "image" for block in later[2]["content"])

    await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})

    for table in ("files", "file_pieces", "attachments"):
        owned = f"SELECT count(*) FROM {table} WHERE user_id = $1"
        assert await stack.inspection.value(owned, UUID(user.id)) == 0
