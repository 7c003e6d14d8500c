"""What people say when they have been served: it opens no ticket again, and nobody answers it."""

import re
import unicodedata

_THANKS = frozenset(re.findall(r"\w+", """
    obrigado obrigada brigado brigada obg obgd vlw valeu grato grata agradecido agradecida gratidao
    thanks thank thx ty tks cheers"""))  # fmt: skip
_ALONE = frozenset(re.findall(r"\w+", """
    ok okay okey blz beleza certo combinado perfeito show top joia tchau entendi entendido igualmente otimo
    otima great perfect bye cool"""))  # fmt: skip
_BESIDE = frozenset(re.findall(r"\w+", """
    certinho legal massa sim ta bom boa bem tudo muito muita muitissimo mesmo e a o eu pela pelo ajuda
    atendimento atencao por de nada abraco abracos dia tarde noite voce voces deus abencoe amem
    good nice fine sure got it you u so very much a lot for the your help have day all"""))  # fmt: skip
_KNOWN = _THANKS | _ALONE | _BESIDE
_SHORT_WORDS = 8


def is_thanks(text: str) -> bool:
    """Whether a text is no more than a short thank-you, in Portuguese or English, or signs alone (👍 🙏).

    A question is none, nor what has a word that does not belong: better a ticket too many than one too few.
    """
    if "?" in text or not text.strip():
        return False
    words = "".join(char if char.isalnum() else " " for char in _plain(text)).split()
    if not words:
        signs = [char for char in text if not (char.isspace() or char in _MARKS)]
        return bool(signs) and all(char in _KIND or char in _COLOURS for char in signs)
    says_it = any(word in _THANKS or word in _ALONE for word in words)
    return says_it and len(words) <= _SHORT_WORDS and all(word in _KNOWN for word in words)


def _plain(text: str) -> str:
    """Small letters without accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in apart if not unicodedata.combining(char))


_KIND = frozenset("👍👌🙏🙌👏😀😃😄😁😊🙂😉😍🥰😘🤗🤝❤💙💚💛💜🧡🖤🤍♥✨🎉💪✅✌☺:;)")
_MARKS = frozenset(".!,~")
_COLOURS = frozenset("\ufe0f\u200d🏻🏼🏽🏾🏿")
"""What joins or colours a sign."""
