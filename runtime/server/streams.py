"""Several streams of chunks as one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ..requests import Chunk

Merged = AsyncGenerator[tuple[int, Chunk], None]
"""Which stream, and its chunk."""


async def merged(streams: Sequence[AsyncGenerator[Chunk, None]]) -> Merged:
    """The chunks of all streams as they come. What one raises ends all; so does closing this one."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for chunk in only:
                yield 0, chunk
        return
    found: asyncio.Queue[tuple[int, Chunk] | BaseException | None] = asyncio.Queue()
    tasks = [asyncio.ensure_future(_pump(index, stream, found)) for index, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            item = await found.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    index: int, stream: AsyncGenerator[Chunk, None], found: "asyncio.Queue[tuple[int, Chunk] | BaseException | None]"
) -> None:
    try:
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                found.put_nowait((index, chunk))
    except BaseException as problem:
        found.put_nowait(problem)
        raise
    found.put_nowait(None)
