"""The vocabulary that `measure_names` decides by: verbs, and the words for which CONTRIBUTING has better ones."""

from __future__ import annotations

import re
from dataclasses import dataclass


def split_words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


VERBS = split_words(
    """
    abort accept access accumulate acquire activate adapt add adjust adopt advance advise aggregate agree alert
    align allocate allow amend annotate announce answer append apply approve archive arrange ask assemble assert
    assign attach attempt attend augment await balance begin benchmark bind blend block bootstrap broadcast build
    bundle calculate calibrate call cancel cast change charge check choose claim clamp classify clean clear clip
    clone close collapse collate collect combine commit compare compile complete compose compress compute
    concatenate conclude configure confirm connect construct consume contain continue control convert copy correct
    count cover create crop cut deal debug decide declare decode decompress decorate decrease decrypt dedupe defer
    define degrade delete deliver demand deny deploy derive describe deserialize detach detect determine diff
    disable discard disconnect discover dispatch display distribute divide do download drain draw drop dump
    duplicate edit emit emulate enable encode encrypt end enforce enlarge ensure enter enumerate equalize erase
    escape establish estimate evaluate exchange exclude execute exit expand expect explain export extend extract
    extrapolate fail feed fetch fill filter finalize find finish fit fix flag flatten flip flush fold follow forbid
    force forget fork format forward free freeze gather generate get give go group guard guess halve handle hang
    hash help hide hold identify ignore implement import increase increment index indicate infer inform inherit init
    initialise initialize inject inline insert inspect install interpolate interrupt invert invoke iterate join keep
    kill launch lay lead learn leave let limit link list listen load locate lock log look loop make manage map mark
    mask match materialise materialize measure memoize mend merge migrate mirror mix modify monitor mount move
    multiply mutate narrow negotiate normalise normalize note notify observe obtain offer omit open order overlap
    override pack pad paint parse partition pass paste patch pause perform permute persist pick pin place plan plot
    poll pop populate post posterize postpone predict prefer prefetch preload prepare prepend present preserve press
    prevent print probe process produce profile promote prompt propagate propose protect prove provide prune publish
    pull purge push put quantize query queue quote raise randomize rank rate raze read rebuild receive recommend
    reconnect record recover redact redirect reduce refer refine refresh refuse register reject release reload rely
    remember remove rename render reopen reorder repair repeat replace replay report represent reproduce request
    requeue require reraise rescale reserve reset reshape resize resolve respond restart restore restrict resume
    retain retire retrain retrieve retry return reuse reverse revert review revive rewind rewrite roll rollback
    rotate round route run sample sanitize satisfy save scale scan schedule score screen seal search see seed seek
    select send separate serialize serve set settle setup shard share sharpen shift shorten show shrink shuffle shut
    sign signal simplify simulate skip sleep slice smooth snapshot solarize solve sort spawn specify split spread
    squeeze stack stage stamp start state step stop store stream stretch strip submit substitute subtract suggest
    summarise summarize supply support suppress suspend swap switch sync synchronise synchronize tag take teardown
    tell terminate test throttle throw tick tidy tile time toggle touch trace track train transfer transform
    translate transpose traverse treat trim truncate try tune turn undo unescape unify uninstall unite unlink unlock
    unpack unquote unregister unwrap update upgrade upload upsample use validate vary verify view visit wait wake
    walk warm warn warp watch wipe withdraw wrap write yield zip
    """
)
"""English verbs that begin the name of a function. Words that are rather nouns as the whole of a name are left to
`NOUNS_ALONE`."""
NOUNS_ALONE = split_words(
    """
    access alert answer archive attempt balance benchmark block bundle change charge diff display end estimate exchange
    format group guard index limit lock map mask mix note order pad patch place plan plot process profile queue rank
    rate record report request result route sample scale schedule score screen shard share shift signal slice snapshot
    stack stage stamp start state step store stream tag tile time touch trace track turn view walk
    """
)
"""Verbs that are nouns as well: a name that is this word alone is a verb only where its function returns nothing."""
QUESTIONS = ("is_", "has_", "can_", "are_", "was_", "should_", "needs_")
QUESTION_WORDS = frozenset({"what", "whether", "how", "where", "which", "who"})
FIXED_NAMES = re.compile(r"on_\w+|visit_[A-Z]\w*|do_[A-Z]+|[a-z]+_dataloader|state_dict|teardown|setup|forward")
"""Names that Lightning, torch, `ast` or `http.server` call by: not ours to choose."""


@dataclass(frozen=True)
class Banned:
    """A word or phrase that STYLE replaces.

    Attributes:
        text: matches it in prose.
        name: matches it among the words of an identifier; None where only a phrase of prose is meant.
        instead: the field's term.
    """

    text: re.Pattern[str]
    name: re.Pattern[str] | None
    instead: str


def _banned(text: str, name: str | None, instead: str) -> Banned:
    compiled = re.compile(rf"(?:^|_)(?:{name})(?:_|$)") if name else None
    return Banned(re.compile(rf"(?<![\w-])(?:{text})(?![\w-])", re.IGNORECASE), compiled, instead)


BANNED = (
    _banned("houses?", "houses?", "package"),
    _banned("rooms?", "rooms?", "module"),
    _banned("doors?", "doors?", "entry point"),
    _banned("story|stories", "story|stories", "steps"),
    _banned("verbs?", "verbs?", "command"),
    _banned("damage[sd]?", "damage[sd]?", "degradation (of a model), corruption (of a file)"),
    _banned("headspace", "headspace", "headroom"),
    _banned("mend(?:s|ed|ing)?", "mend(?:s|ed|ing)?", "fix"),
    _banned("bless(?:es|ed|ing)?", "bless(?:es|ed|ing)?", "approve"),
    _banned("ask(?:s|ed|ing)? (?:a|the|this|that) server", None, "send a request to"),
    _banned("gates? (?:that )?(?:did not |does not |do not |must )?h(?:old|olds|eld)", None, "pass (a gate)"),
    _banned("beside", "beside", "compared with, next to"),
    _banned("the whole way", "whole_way", "end to end"),
    _banned("as (?:it|they) comes?|at hand|to be had", None, "default, available"),
    _banned("tell(?:s|ing)?|told|sa(?:y|ys|id|ying)", "tell(?:s|ing)?|told|say(?:s|ing|ings)?|said", "report, print"),
    _banned("go(?:es|ing)? on|gone on|went on", "go(?:es)?_on|gone_on|going_on", "resume, continue"),
    _banned("to the bit", "to_the_bit", "bitwise identical"),
    _banned("anew|from the beginning", "anew", "restart, re-initialise"),
    _banned(r"(?:is|are) no(?! longer| more| less)", "is_no", "not a …, … not found"),
    _banned("(?:one )?of (?:ours|yours)|somebody(?:'s)?|nobody(?:'s)?", "ours|yours|somebody|nobody", "built-in, user"),
    _banned("st(?:and|ands|ood|anding) in|l(?:ie|ies|ying) in", "stands_in|lies_in", "is in"),
    _banned("taken for|held against|as sure as right", "taken_for|held_against", "predicted as, compared with"),
    _banned("the figures?(?: it reached)?|figures", "figures?", "metrics (or plots)"),
    _banned("no room", "no_room", "disk full"),
    _banned("a word each|one word", None, "one option"),
    _banned("polite(?:ly)?", "polite", "graceful"),
    _banned("turns? of the loop", "turns?", "retraining cycle"),
)
BANNED_ALONE = {
    "look": "check",
    "asked": "request",
    "kept": "saved",
    "there": "exists",
    "each": "item",
    "found": "result",
    "place": "path or index",
}
"""As the whole of a name."""
