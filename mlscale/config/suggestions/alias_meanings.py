"""The meaning of a foreign name in one config: the override to type, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence

from mlscale.config.names import not_yet
from mlscale.config.names.foreign_names import Alias, load_foreign_names
from mlscale.config.names.name_distance import fold_name, is_extension
from mlscale.config.names.suggest import find_nearest, is_override
from mlscale.config.schema.job_facts import TASK_METRICS
from mlscale.config.schema.key_owners import BUILDS_SEVERAL
from mlscale.config.suggestions.completed_advice import complete_advice, join_reasons
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.templates import fill_template
from mlscale.config.suggestions.value_forms import convert_typed


def render_alias(alias: Alias, path: str, value: object, names: Names) -> Advice | None:
    """Return the meaning of `alias` and the value in this config, complete; None if nothing suits."""
    advice = translate_alias(alias, path, value, names)
    return complete_advice(advice, path, names) if advice is not None else None


def translate_alias(alias: Alias, path: str, value: object, names: Names) -> Advice | None:
    """Return the meaning of `alias` and the value alone."""
    why = alias.why_of(value)
    meant = alias.fix_of(value)
    if meant == "":
        return Advice(f"leave {path} out", why)
    if meant and (fix := _check_text(meant, value, names)):
        return Advice(fix, why, is_override(fix))
    if alias.group and (fix := _find_named_option(alias, value, names)):
        of_option = load_foreign_names().options.get(alias.group, Alias()).why_of(value)
        return Advice(fix, join_reasons(why, of_option), is_override(fix))
    if alias.group and (refused := explain_refused_option(alias.group, value)):
        return Advice(f"leave {path} out", refused)
    typed = convert_typed(alias.convert, value, names)
    for template in alias.to:
        if fix := fill_template(template, typed, names):
            return Advice(fix, why)
    if "metric={metric}" in alias.to and (logged := TASK_METRICS.get(names.facts.task)):
        metrics = ", ".join(f"val/{metric}" for metric in logged)
        return Advice(f"leave {path} out", f"task={names.facts.task} logs {metrics}: metric takes one of these")
    if alias.words:
        return Advice(alias.words, why, exact=False)
    texts = [meant or "", *alias.to, *_list_meant_options(alias.group, value, names)]
    if reason := explain_misfit(texts, names):
        return Advice(f"leave {path} out", reason)
    if alias.unsupported:
        return Advice(f"leave {path} out", f"not supported: {alias.unsupported}")
    if options := names.groups.get(alias.group, ()):
        fitting = [option for option in options if names.facts.fits(alias.group, option)]
        return Advice(f"{alias.group} is one of {', '.join(fitting)}", why, exact=False)
    return None


def explain_refused_option(group: str, value: object) -> str:
    """Return the reason why an option of other programs is none here; "" where none is known."""
    options = load_foreign_names().options.get(group, Alias())
    return options.why_of(value) if options.fix_of(value) == "" else ""


def _check_text(text: str, value: object, names: Names) -> str:
    """Return the overrides of the table for one value, "" where they do not suit this config; a sentence as it is."""
    if not is_override(text):
        return text
    # timm is optional.
    filled = fill_template(text, value, names)
    return filled or (f"pip install 'mlscale[timm]'\n{text}" if "=timm." in text else "")


def explain_misfit(texts: Sequence[str], names: Names) -> str:
    """Return the reason why the first option that some overrides choose is not for this job; "" where it is."""
    for word in " ".join(texts).split(" "):
        if word.startswith("augment._target_=") and not names.facts.fits("augment", "flip"):
            return names.facts.describe_misfit("augment", "flip").replace("augment=flip", "augment", 1)
        group, _, right = word.partition("=")
        group, dot, option = group.partition(".")
        options = [option] if dot else right.strip("[]").split(",")
        for option in options if group in names.groups else ():
            if option in names.groups[group] and not names.facts.fits(group, option):
                return names.facts.describe_misfit(group, option)
    return ""


def _list_meant_options(group: str, value: object, names: Names) -> list[str]:
    """Return the overrides that a value names in a group, whether they suit this config or not."""
    options = load_foreign_names().options.get(group, Alias())
    near = find_nearest(value, names.groups.get(group, ())) if isinstance(value, str) else None
    return [text for text in (options.fix_of(value), f"{group}={near}" if near else "") if text]


def _find_named_option(alias: Alias, value: object, names: Names) -> str:
    """Return the option of the key's group that a value names. Where the key takes other texts as well (`experiment` is
    the name of a run), only one that is spelled exactly so.
    """
    if not alias.to:
        return find_group_option(alias.group, value, names)
    options = names.groups.get(alias.group, ())
    same = [option for option in options if isinstance(value, str) and fold_name(option) == fold_name(value)]
    return f"{alias.group}={same[0]}" if same and names.facts.fits(alias.group, same[0]) else ""


def find_group_option(group: str, value: object, names: Names) -> str:
    """Return the option of a group that a value names, here or in other programs; "" for none."""
    options = names.groups.get(group, ())
    alias = load_foreign_names().options.get(group, Alias())
    own = isinstance(value, str) and any(fold_name(option) == fold_name(value) for option in options)
    if not own and (fix := alias.fix_of(value)) is not None:
        return _check_text(fix, value, names)
    if isinstance(value, list) and group in BUILDS_SEVERAL:
        return _of_several(group, value, names)
    if not isinstance(value, str):
        return ""
    if not_yet.find_feature_of_option(group, value):
        return ""
    option = find_nearest(value, options)
    if option and is_extension(value, option):  # `gpt3` is another model than gpt, and of the same kind
        if not names.facts.fits(group, option):
            return ""
    elif option:
        # Callbacks are added to the usual ones; of every other group one option takes the place of another.
        added = group == "callbacks" and option not in ("default", "none")
        fix = f"{group}=[default,{option}]" if added else f"{group}={option}"
        return fix if names.facts.fits(group, option) else ""
    return next(filter(None, (fill_template(template, value, names) for template in alias.to)), alias.words)


def _of_several(group: str, values: Sequence[object], names: Names) -> str:
    """Return the override for several options of a group, each named here or in other programs: `[wandb,comet]`."""
    fixes = [find_group_option(group, value, names) for value in values]
    options = [fix.removeprefix(f"{group}=") for fix in fixes]
    return f"{group}=[{','.join(options)}]" if options and set(options) <= set(names.groups[group]) else ""


def takes(alias: Alias, value: object, names: Names) -> bool:
    """Return whether the meaning of a foreign name takes the value as it is: `run_name=yolo` is a name of the run."""
    return any("{" in template and fill_template(template, value, names) for template in alias.to)
