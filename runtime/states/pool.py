"""The pages of one state group: free, in use by one or more sequences, or idle but kept for what they hold."""

from collections import OrderedDict


class PagePool:
    """Counts who uses each page, and remembers what full pages hold.

    Free pages are taken before idle ones, and what was freed last first, so that few pages stay in memory; of idle
    ones the least recently used. Pages with remembered content are never written again.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._free = list(range(pages - 1, -1, -1))
        self._uses = [0] * pages
        self._page_of: dict[bytes, int] = {}
        self._content: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Pages that can be taken."""
        return len(self._free) + len(self._idle)

    @property
    def in_use(self) -> int:
        return self.pages - self.available

    @property
    def cached(self) -> int:
        """Idle pages: nobody's, but remembered."""
        return len(self._idle)

    def uses(self, page: int) -> int:
        """How many sequences hold it."""
        return self._uses[page]

    def take(self) -> int:
        """A page for one sequence. IndexError where ``available`` is 0."""
        if self._free:
            page = self._free.pop()
        elif self._idle:
            page, _ = self._idle.popitem(last=False)
            self.forget(page)
        else:
            raise IndexError("no page is available")
        self._uses[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more sequence holds ``page``."""
        if not self._uses[page]:
            del self._idle[page]
        self._uses[page] += 1

    def drop(self, page: int) -> None:
        """One sequence fewer holds ``page``; the last one leaves it idle if its content is remembered, or free."""
        self._uses[page] -= 1
        if not self._uses[page]:
            if page in self._content:
                self._idle[page] = None
            else:
                self._free.append(page)

    def find(self, content: bytes) -> int | None:
        """The page that holds ``content``."""
        return self._page_of.get(content)

    def keep(self, page: int, content: bytes) -> None:
        """Remember what a page in use holds, unless another page holds the same."""
        if content not in self._page_of and page not in self._content:
            self._page_of[content] = page
            self._content[page] = content

    def forget(self, page: int) -> None:
        """Remember no longer what ``page`` holds."""
        content = self._content.pop(page, None)
        if content is not None:
            del self._page_of[content]

    def forget_all(self) -> None:
        """Remember nothing; idle pages become free."""
        self._page_of.clear()
        self._content.clear()
        self._free.extend(self._idle)
        self._idle.clear()
