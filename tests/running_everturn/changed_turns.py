"""A version of Everturn whose turns take another course: `python -m …changed_turns worker …`."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from schema.names import CHAT_TURN, TURNS_QUEUE
    from schema.turns import TurnOutcome, TurnReference
    from workflows.chat_turn import ChatTurn


@workflow.defn(name=CHAT_TURN)
class WaitingTurn(ChatTurn):
    """Waits before everything, which no turn that has begun without could follow."""

    @workflow.run
    async def run(self, turn: TurnReference) -> TurnOutcome:
        """Wait, then run the turn."""
        await workflow.sleep(0.01)
        return await super().run(turn)


def main() -> None:
    """Run a command of Everturn with the changed workflow."""
    # The commands import what they run later, and so find the change.
    from workers import workflow_types  # noqa: PLC0415
    from workers.command_line import app  # noqa: PLC0415

    changed = {**workflow_types.WORKFLOWS, TURNS_QUEUE: (WaitingTurn,)}
    all_changed = tuple(kind for kinds in changed.values() for kind in kinds)
    workflow_types.__dict__.update(WORKFLOWS=changed, ALL_WORKFLOWS=all_changed)
    app()


if __name__ == "__main__":
    # The sandbox imports workflows by the name of their module, which here is `__main__`.
    from tests.running_everturn import changed_turns

    changed_turns.main()
