"""What the commands about versions of workers say where Temporal refuses."""

import pytest
from temporalio.service import RPCError, RPCStatusCode

from services.settings import Settings
from workers.deployment.command import _own
from workers.deployment.moving import ForeignCodeError, NotCurrentError
from workers.deployment.versions import (
    DeploymentError,
    NoBuildIdError,
    NotReadyYetError,
    _explained,
)


@pytest.mark.parametrize(
    ("status", "message", "kind", "said"),
    [
        (
            *(RPCStatusCode.UNIMPLEMENTED, "unknown method DescribeWorkerDeployment"),
            *(DeploymentError, "This Temporal server has no worker deployments"),
        ),
        (
            *(RPCStatusCode.PERMISSION_DENIED, "Worker Deployments are not enabled here"),
            *(DeploymentError, "Upgrade it to 1.28 or newer, or unset EVERTURN_BUILD_ID."),
        ),
        (
            *(RPCStatusCode.UNAVAILABLE, "connection refused\nstack"),
            *(NotReadyYetError, "Repeat the command: it is safe to repeat."),
        ),
        (
            *(RPCStatusCode.FAILED_PRECONDITION, "conflict token mismatch"),
            *(NotReadyYetError, "Temporal refuses the promotion: conflict token mismatch"),
        ),
        (
            *(RPCStatusCode.PERMISSION_DENIED, "no access"),
            *(DeploymentError, "Temporal refused: no access (PERMISSION_DENIED)."),
        ),
    ],
)
def test_an_error_of_temporal_is_one_line_that_says_what_to_do(
    status: RPCStatusCode, message: str, kind: type[DeploymentError], said: str
) -> None:
    explained = _explained(RPCError(message, status, b""))

    assert type(explained) is kind
    assert said in str(explained)
    assert len(str(explained).splitlines()) == 1


def test_a_version_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(NoBuildIdError, match="Set EVERTURN_BUILD_ID, or name it by --build-id"):
        _own(Settings(_env_file=None, build_id=""))


@pytest.mark.parametrize(
    ("current", "said"),
    [("1.2.0", "Version 1.3.0 is not current, 1.2.0 is."), (None, "Version 1.3.0 is not current.")],
)
def test_what_is_current_is_named_where_runs_would_move_elsewhere(
    current: str | None, said: str
) -> None:
    assert str(NotCurrentError("1.3.0", current)).startswith(said)


def test_only_the_code_of_a_version_moves_runs_to_it() -> None:
    assert "this is version 1.2.0" in str(ForeignCodeError("1.3.0", "1.2.0"))
    assert "this is without a version" in str(ForeignCodeError("1.3.0", None))


@pytest.mark.parametrize("build_id", [" ", "a b", "-x", "x:y", "x" * 129])
def test_an_unusable_build_id_is_an_invalid_setting(build_id: str) -> None:
    with pytest.raises(ValueError, match="build_id"):
        Settings(_env_file=None, build_id=build_id)
