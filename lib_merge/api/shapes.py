"""What answers look like: the shapes of JSON objects, for OpenAPI and for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_merge.api._fields import Field, Kind


def sure(name: str, kind: Kind, help: str, of: str = "") -> Field:
    """A field that is never null."""
    return Field(name, kind, help, is_required=True, of=of)


def maybe(name: str, kind: Kind, help: str, of: str = "") -> Field:
    """A field that is null where there is nothing to say."""
    return Field(name, kind, help, of=of)


SHAPES: Mapping[str, Sequence[Field]] = {
    "Problem": (
        sure("error", Kind.TEXT, "the status in a permanent word"),
        sure("problems", Kind.TEXTS, "what is wrong and what to do, a sentence each"),
    ),
    "Health": (
        sure("host", Kind.TEXT, "the host's permanent id"),
        sure("label", Kind.TEXT, "the host's name and version"),
        sure("versions", Kind.VALUES, "of MergeLab, Python and what it runs on"),
        sure("device", Kind.TEXT, "where the host computes"),
        sure("device_name", Kind.TEXT, "what that is"),
        maybe("loaded", Kind.TEXT, "the file of the loaded model"),
        sure("is_merge", Kind.FLAG, "whether the loaded model is a merge of ours"),
        maybe("recipe", Kind.TEXT, "the recipe hash of that merge"),
        sure("checks", Kind.MANY, "what works and what is refused", "Check"),
    ),
    "Check": (
        sure("id", Kind.TEXT, "permanent id"),
        sure("label", Kind.TEXT, "what was looked at"),
        sure("state", Kind.TEXT, "works, refused, busy or unknown"),
        sure("words", Kind.TEXT, "what was found, and the remedy of a refusal"),
    ),
    "Model": (
        sure("title", Kind.TEXT, "what requests name it by"),
        sure("file", Kind.TEXT, "its file's name"),
        sure("path", Kind.TEXT, "its file"),
        maybe("sha256", Kind.TEXT, "its hash, where the host knows it"),
        sure("is_loaded", Kind.FLAG, "whether it is the loaded model's file"),
    ),
    "Method": (
        sure("id", Kind.TEXT, "permanent id"),
        sure("label", Kind.TEXT, "what it is called"),
        sure("formula", Kind.TEXT, "in plain text"),
        sure("source", Kind.TEXT, "paper or origin"),
        sure("doc", Kind.TEXT, "shapes, limits and degenerate inputs"),
        sure("kind", Kind.TEXT, "the heading that it is listed under"),
        sure("over", Kind.TEXT, "what it works on at a time"),
        sure("n_passes", Kind.WHOLE, "how often it goes over a tensor"),
        sure("has_base", Kind.FLAG, "whether its first model is a base"),
        sure("inputs", Kind.MANY, "the models that it takes, in order"),
        sure("min_models", Kind.WHOLE, "how many at least"),
        sure("params", Kind.MANY, "parameters with default and limits"),
    ),
    "Plan": (
        sure("recipe", Kind.TEXT, "the recipe's hash"),
        sure("sentence", Kind.TEXT, "what the merge will do"),
        sure("effort", Kind.TEXT, 'what running it takes; "" where that is little'),
        sure("architecture", Kind.TEXT, "its id"),
        sure("n_merged", Kind.WHOLE, "tensors that are blended"),
        sure("n_copied", Kind.WHOLE, "tensors that are copied"),
        sure("bytes_read", Kind.WHOLE, "of all models"),
        sure("bytes_written", Kind.WHOLE, "of the result"),
        sure("rules", Kind.TEXTS, "what each rule catches"),
        sure("warnings", Kind.TEXTS, "what is odd"),
        sure("recipe_json", Kind.OBJECT, "the whole recipe"),
    ),
    "Job": (
        sure("id", Kind.TEXT, "names it in other requests"),
        sure("title", Kind.TEXT, "what it does"),
        sure("state", Kind.TEXT, "running, stopping, done, stopped or failed"),
        sure("is_active", Kind.FLAG, "whether it is at work"),
        sure("label", Kind.TEXT, "the phase that it is in"),
        maybe("fraction", Kind.NUMBER, "of the phase, 0 to 1"),
        maybe("rate", Kind.NUMBER, "units a second"),
        sure("unit", Kind.TEXT, "B for bytes, else a noun in the plural"),
        maybe("eta_s", Kind.NUMBER, "seconds left"),
        sure("seconds", Kind.NUMBER, "since it began, or in all"),
        sure("message", Kind.TEXT, "its result or its error"),
        sure("result", Kind.OBJECT, "its result by name: path, sha256, recipe ..."),
    ),
    "RecipeFile": (
        sure("name", Kind.TEXT, "what requests name it by"),
        maybe("recipe", Kind.TEXT, "its hash; null where it cannot be read"),
        sure("sentence", Kind.TEXT, "its methods and models, or why it is unreadable"),
        sure("modified", Kind.NUMBER, "Unix time of the last change"),
    ),
    "Recipe": (
        sure("name", Kind.TEXT, "what it was asked for by"),
        sure("recipe", Kind.TEXT, "its hash"),
        sure("recipe_json", Kind.OBJECT, "the whole recipe"),
        sure("models", Kind.MANY, "its files, found or not", "Input"),
        sure("notes", Kind.TEXTS, "how it was understood where that is not obvious"),
        sure("unknown", Kind.TEXTS, "what it does not say"),
    ),
    "Input": (
        sure("path", Kind.TEXT, "as the recipe has it"),
        maybe("found", Kind.TEXT, "the file in the host's folders"),
        sure("reason", Kind.TEXT, "why there is none"),
    ),
    "Scorer": (
        sure("id", Kind.TEXT, "permanent id"),
        sure("label", Kind.TEXT, "what it is called"),
        sure("is_available", Kind.FLAG, "whether it can be used"),
        sure("reason", Kind.TEXT, "why not, and what to do"),
    ),
    "Payload": (
        sure("name", Kind.TEXT, "what a study names it by"),
        sure("title", Kind.TEXT, "what it is called in the tab"),
    ),
    "StudyLine": (
        sure("name", Kind.TEXT, "its name"),
        sure("state", Kind.TEXT, "new, running, stopped, complete, imported"),
        sure("n_complete", Kind.WHOLE, "scored trials"),
        sure("n_trials", Kind.WHOLE, "trials asked for"),
        maybe("best_score", Kind.NUMBER, "of the search"),
        sure("modified", Kind.NUMBER, "Unix time of the last change"),
    ),
    "Study": (
        sure("name", Kind.TEXT, "its name"),
        sure("state", Kind.TEXT, "running, paused, stopped, complete, failed ..."),
        sure("is_active", Kind.FLAG, "whether this program is at work on it"),
        sure("trial", Kind.WHOLE, "points decided so far, or finalists"),
        sure("n_trials", Kind.WHOLE, "points asked for, or candidates"),
        sure("image", Kind.WHOLE, "pictures done of the trial in flight"),
        sure("n_images", Kind.WHOLE, "pictures a trial"),
        maybe("best_score", Kind.NUMBER, "of the search"),
        maybe("best_trial", Kind.WHOLE, "that trial's number"),
        sure("best_label", Kind.TEXT, "its label"),
        sure("baselines", Kind.VALUES, "scores of both parents and the middle"),
        maybe("last_score", Kind.NUMBER, "of the last picture"),
        maybe("eta_s", Kind.NUMBER, "seconds to the end"),
        sure("n_failed", Kind.WHOLE, "attempts that failed"),
        sure("n_workers", Kind.WHOLE, "workers that are at it"),
        sure("message", Kind.TEXT, "one sentence for people"),
        sure("failure", Kind.TEXT, "what ended it"),
        sure("has_report", Kind.FLAG, "whether its report has been written"),
    ),
    "Trial": (
        sure("number", Kind.WHOLE, "its number"),
        sure("slot", Kind.WHOLE, "the point's place in the search"),
        sure("label", Kind.TEXT, "A, B, uniform, or nothing for a sampler's point"),
        sure("state", Kind.TEXT, "complete, pruned, failed, interrupted or killed"),
        maybe("score", Kind.NUMBER, "of all its pictures"),
        maybe("diversity", Kind.NUMBER, "how unlike the pictures of a prompt are"),
        sure("seconds", Kind.NUMBER, "wall time"),
        sure("reason", Kind.TEXT, "why it failed"),
        sure("point", Kind.VALUES, "what was searched, by name"),
        sure("images", Kind.MANY, "its pictures", "Image"),
    ),
    "Image": (
        sure("file", Kind.TEXT, "names it below the trial's images"),
        sure("payload", Kind.TEXT, "the payload's name"),
        sure("seed", Kind.WHOLE, "what it was rendered with"),
        sure("prompt", Kind.TEXT, "what the scorers read"),
        sure("score", Kind.NUMBER, "what is tallied"),
        sure("raws", Kind.VALUES, "every scorer's own value"),
    ),
    "Kept": (sure("path", Kind.TEXT, "the file that was written"),),
    "Deleted": (sure("name", Kind.TEXT, "what is gone"),),
    "Object": (),
}
"""Fields by shape; an empty shape is any object."""
