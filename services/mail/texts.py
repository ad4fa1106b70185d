"""The words of mails, in the languages of users; English where theirs is not among them.

A mail names nothing that a user wrote: someone who signs up with the address of another could
otherwise have any text sent there.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from schema.mail import MailKind


class MailText(NamedTuple):
    """A subject and a text; `{site}` and `{link}` are filled in."""

    subject: str
    body: str


_ENGLISH: Final = {
    MailKind.PASSWORD_RESET: MailText(
        "Reset your password for {site}",
        "Someone asked to reset the password of your account at {site}.\n\n"
        "To choose a new password, open this link within an hour:\n\n{link}\n\n"
        "If that wasn't you, ignore this message. Your password stays the same.\n",
    ),
    MailKind.EMAIL_VERIFICATION: MailText(
        "Confirm your email address for {site}",
        "Please confirm that this is the email address of your account at {site}: "
        "open this link within 24 hours.\n\n{link}\n\n"
        "If you don't have an account there, ignore this message.\n",
    ),
    MailKind.PASSWORD_CHANGED: MailText(
        "Your password for {site} was changed",
        "The password of your account at {site} was changed, and all other sessions were signed "
        "out.\n\n"
        "If that wasn't you, reset your password at once, and revoke API keys that you don't "
        "know:\n\n{link}\n",
    ),
    MailKind.EMAIL_CHANGE: MailText(
        "Your email address for {site} is being changed",
        "Someone who knows your password asked to change the email address of your account at "
        "{site}. The change takes effect when the new address is confirmed.\n\n"
        "If that wasn't you, change your password at once:\n\n{link}\n",
    ),
}
_GERMAN: Final = {
    MailKind.PASSWORD_RESET: MailText(
        "Passwort für {site} zurücksetzen",
        "Jemand möchte das Passwort deines Kontos bei {site} zurücksetzen.\n\n"
        "Um ein neues Passwort zu wählen, öffne innerhalb einer Stunde diesen Link:\n\n{link}\n\n"
        "Wenn du das nicht warst, ignoriere diese Nachricht. Dein Passwort bleibt unverändert.\n",
    ),
    MailKind.EMAIL_VERIFICATION: MailText(
        "E-Mail-Adresse für {site} bestätigen",
        "Bitte bestätige, dass dies die E-Mail-Adresse deines Kontos bei {site} ist: "
        "Öffne innerhalb von 24 Stunden diesen Link.\n\n{link}\n\n"
        "Wenn du dort kein Konto hast, ignoriere diese Nachricht.\n",
    ),
    MailKind.PASSWORD_CHANGED: MailText(
        "Dein Passwort für {site} wurde geändert",
        "Das Passwort deines Kontos bei {site} wurde geändert, und alle anderen Sitzungen wurden "
        "abgemeldet.\n\n"
        "Wenn du das nicht warst, setze dein Passwort sofort zurück und widerrufe API-Schlüssel, "
        "die du nicht kennst:\n\n{link}\n",
    ),
    MailKind.EMAIL_CHANGE: MailText(
        "Deine E-Mail-Adresse für {site} wird geändert",
        "Jemand, der dein Passwort kennt, möchte die E-Mail-Adresse deines Kontos bei {site} "
        "ändern. Die Änderung gilt, sobald die neue Adresse bestätigt ist.\n\n"
        "Wenn du das nicht warst, ändere sofort dein Passwort:\n\n{link}\n",
    ),
}
_FRENCH: Final = {
    MailKind.PASSWORD_RESET: MailText(
        "Réinitialiser votre mot de passe pour {site}",
        "Une réinitialisation du mot de passe de votre compte sur {site} a été demandée.\n\n"
        "Pour choisir un nouveau mot de passe, ouvrez ce lien dans l'heure :\n\n{link}\n\n"
        "Si vous n'êtes pas à l'origine de cette demande, ignorez ce message. Votre mot de passe "
        "reste inchangé.\n",
    ),
    MailKind.EMAIL_VERIFICATION: MailText(
        "Confirmer votre adresse e-mail pour {site}",
        "Confirmez que cette adresse e-mail est celle de votre compte sur {site} : "
        "ouvrez ce lien dans les 24 heures.\n\n{link}\n\n"
        "Si vous n'y avez pas de compte, ignorez ce message.\n",
    ),
    MailKind.PASSWORD_CHANGED: MailText(
        "Votre mot de passe pour {site} a été modifié",
        "Le mot de passe de votre compte sur {site} a été modifié, et toutes les autres sessions "
        "ont été déconnectées.\n\n"
        "Si vous n'êtes pas à l'origine de ce changement, réinitialisez immédiatement votre mot "
        "de passe et révoquez les clés API que vous ne connaissez pas :\n\n{link}\n",
    ),
    MailKind.EMAIL_CHANGE: MailText(
        "Votre adresse e-mail pour {site} est en cours de modification",
        "Une personne qui connaît votre mot de passe a demandé à modifier l'adresse e-mail de "
        "votre compte sur {site}. Le changement prendra effet une fois la nouvelle adresse "
        "confirmée.\n\n"
        "Si vous n'êtes pas à l'origine de cette demande, changez immédiatement votre mot de "
        "passe :\n\n{link}\n",
    ),
}
_SPANISH: Final = {
    MailKind.PASSWORD_RESET: MailText(
        "Restablecer la contraseña de {site}",
        "Se ha solicitado restablecer la contraseña de tu cuenta en {site}.\n\n"
        "Para elegir una contraseña nueva, abre este enlace antes de una hora:\n\n{link}\n\n"
        "Si no lo has solicitado, ignora este mensaje. Tu contraseña no cambia.\n",
    ),
    MailKind.EMAIL_VERIFICATION: MailText(
        "Confirmar tu correo electrónico para {site}",
        "Confirma que esta es la dirección de correo electrónico de tu cuenta en {site}: "
        "abre este enlace antes de 24 horas.\n\n{link}\n\n"
        "Si no tienes una cuenta allí, ignora este mensaje.\n",
    ),
    MailKind.PASSWORD_CHANGED: MailText(
        "Se ha cambiado tu contraseña de {site}",
        "Se ha cambiado la contraseña de tu cuenta en {site} y se han cerrado todas las demás "
        "sesiones.\n\n"
        "Si no has sido tú, restablece la contraseña de inmediato y revoca las claves de API que "
        "no conozcas:\n\n{link}\n",
    ),
    MailKind.EMAIL_CHANGE: MailText(
        "Tu correo electrónico de {site} se va a cambiar",
        "Alguien que conoce tu contraseña ha solicitado cambiar la dirección de correo electrónico "
        "de tu cuenta en {site}. El cambio se aplicará cuando se confirme la dirección nueva.\n\n"
        "Si no has sido tú, cambia la contraseña de inmediato:\n\n{link}\n",
    ),
}
LANGUAGES: Final[Mapping[str, Mapping[MailKind, MailText]]] = {
    "en": _ENGLISH,
    "de": _GERMAN,
    "fr": _FRENCH,
    "es": _SPANISH,
}


def mail_text(kind: MailKind, *, language: str | None) -> MailText:
    """Return the words of a kind of mail in the language of a tag, e.g. `de-AT`."""
    primary = (language or "en").replace("_", "-").partition("-")[0].lower()
    return LANGUAGES.get(primary, _ENGLISH)[kind]
