"""The settings of mail: a part of services/settings.py, which see for how they are read."""

from email.errors import MessageError
from email.headerregistry import Address
from email.utils import getaddresses
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from schema.users import normalized_email


def _mailbox(text: str) -> str:
    """Return whom mails are from: an address, or a name and an address in angle brackets."""
    try:
        return str(Address(*_parts_of(text)))
    except (ValueError, MessageError):
        raise ValueError("must be like: Example <no-reply@example.com>") from None


def _parts_of(text: str) -> tuple[str, str, str]:
    if not text.isprintable():
        raise ValueError
    ((name, address),) = getaddresses([text])
    local_part, _, domain = normalized_email(address).rpartition("@")
    return name, local_part, domain


class MailSettings(BaseSettings):
    """How users get mail, and whether they must show that they do."""

    smtp_host: str | None = Field(None, description="Of the server that takes mail to users.")
    smtp_port: int = Field(587, ge=1, le=65535)
    smtp_encryption: Literal["starttls", "tls", "none"] = "starttls"
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_timeout_s: float = Field(15.0, gt=0, le=60, description="Of one answer.")
    mail_from: Annotated[str, AfterValidator(_mailbox)] | None = None
    mail_log: bool = Field(
        default=False, description="Show mails in the log instead of sending them."
    )
    mails_per_hour: int = Field(5, ge=1, description="That one account can be sent on request.")
    require_verified_email: bool = Field(default=False, description="For turns.")

    @property
    def sends_mail(self) -> bool:
        """Whether users get mail, if only in the log."""
        return self.smtp_host is not None or self.mail_log

    @field_validator("smtp_host", "smtp_username", "smtp_password", "mail_from", mode="before")
    @classmethod
    def _unset_mail(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _reach_users(self) -> Self:
        if self.smtp_host is not None and self.mail_log:
            raise ValueError("Set EVERTURN_SMTP_HOST or EVERTURN_MAIL_LOG, not both.")
        if self.smtp_host is not None and self.mail_from is None:
            raise ValueError("Set EVERTURN_MAIL_FROM together with EVERTURN_SMTP_HOST.")
        if self.require_verified_email and not self.sends_mail:
            raise ValueError("EVERTURN_REQUIRE_VERIFIED_EMAIL requires EVERTURN_SMTP_HOST.")
        return self
