"""Text of a given length that is the same everywhere: common words, most of them one token of most tokenizers."""

import numpy as np

_TEXT = """
    the of and to in is that for it as was with be by on not he his but at are this have from or had an they which
    one you were all her she there would their we him been has when who will no more if out so up said what its about
    than into them can only other time new some could these two may first then do any like my now over such our man me
    even most made after also did many off before must well back through years where much your way down should because
    long each just state those people too mr how little good world make very year still see own work men day get here
    between both life being under never same know last another while us might great old year go come since against
    right came take used himself few house use place during high without again home around small however found part
    thought school general once upon say every left war does got united number course water until always away public
    something fact less head put think almost hand enough far took yet system better set told nothing night end why
    called eyes find going look asked later point knew city next program business group give days let room word
"""
WORDS = tuple(dict.fromkeys(_TEXT.split()))


def some_words(count: int, random: np.random.Generator) -> str:
    """``count`` words, with spaces between."""
    return " ".join(WORDS[i] for i in random.integers(0, len(WORDS), count).tolist())
