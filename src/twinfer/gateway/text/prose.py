"""Text between calls and thoughts."""


class Prose:
    """Holds back white space that may turn out to only separate text from what is none, and then is not shown."""

    def __init__(self) -> None:
        self._space = ""
        self._follows = False

    def feed(self, text: str) -> str:
        """The text that is certain to be some."""
        body = text.rstrip()
        if not body:
            self._space += "" if self._follows else text
            return ""
        shown = self._space + (body.lstrip() if self._follows else body)
        self._space = text[len(body) :]
        self._follows = False
        return shown

    def cut(self) -> None:
        """Something else comes: white space before and after it is not shown."""
        self._space = ""
        self._follows = True

    def finish(self) -> str:
        """The white space that was held back after all: more text follows, or none and this is the end."""
        space, self._space = self._space, ""
        self._follows = False
        return space
