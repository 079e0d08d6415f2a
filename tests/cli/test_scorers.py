"""`scorers`, and the options of `study run` about scorers and payloads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from lib_merge.autombw.scoring import Judge
from lib_merge.cli import main
from lib_merge.cli._scoring_options import (
    add_payloads,
    add_scoring,
    payload_options,
    scoring_options,
)
from lib_merge.errors import InputError, PayloadError, UnknownIdError


def test_every_scorer_is_listed_with_what_it_lacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As text for people, as JSON for programs."""
    assert main(["scorers"]) == 0
    text = capsys.readouterr().out
    assert "demo_judge  (Demo judge" in text
    assert "here    yes" in text
    assert "here    no: " in text
    assert "option  url: where pictures are sent (needed)" in text
    assert main(["scorers", "--json"]) == 0
    found = {one["id"]: one for one in json.loads(capsys.readouterr().out)}
    assert len(found) == 10
    assert found["demo_judge"]["unavailable_reason"] is None
    assert found["pickscore"]["range"] == [17.0, 24.0]
    assert "licence" in found["hpsv2"]


def test_one_scorer_is_shown_and_an_unknown_one_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the nearest id."""
    assert main(["scorers", "person"]) == 0
    assert capsys.readouterr().out.startswith("person  (You")
    assert main(["scorers", "persons"]) == 2
    assert "did you mean 'person'" in capsys.readouterr().err


def parsed(*argv: str) -> argparse.Namespace:
    """The options of a study."""
    parser = argparse.ArgumentParser()
    add_payloads(parser)
    add_scoring(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("nowhere"))
    return parser.parse_args(["--payloads", "x", *argv])


def test_one_scorer_is_the_studys_scorer() -> None:
    """sigmoid where its values lie around 0, else z."""
    found = scoring_options(parsed())
    assert found["scorer"] == "image_reward"
    assert found["scorer_weights"] is None
    assert found["scoring"].judges == ()
    assert found["scoring"].normalise == "sigmoid"
    found = scoring_options(parsed("--scorer", "pickscore", "--weights", "/w/pick"))
    assert found["scorer_weights"] == "/w/pick"
    assert found["scoring"].normalise == "z"


def test_several_scorers_have_weights_files_and_options() -> None:
    """Each by its id."""
    args = parsed(
        *("--scorer", "image_reward", "--scorer", "http_judge=0.5"),
        *("--weights", "image_reward=/w/ImageReward.pt", "--scorer-memory", "unload"),
        *("--scorer-option", "http_judge.url=http://x/a=b"),
        *("--scorer-option", "http_judge.form=openai"),
    )
    scoring = scoring_options(args)["scoring"]
    options = (("url", "http://x/a=b"), ("form", "openai"))
    assert scoring.judges == (
        Judge("image_reward", 1.0, "/w/ImageReward.pt"),
        Judge("http_judge", 0.5, None, options),
    )
    assert (scoring.normalise, scoring.memory) == ("z", "unload")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--scorer", "pickscore=much"), "write ID or ID=WEIGHT"),
        (
            ("--scorer", "pickscore", "--scorer", "hpsv2", "--weights", "w.pt"),
            "say whose they are, e.g. pickscore=FILE",
        ),
        (("--scorer-option", "hpsv2.x=1"), "one of these scorers: image_reward"),
        (("--scorer-option", "image_reward.x=1"), "has no option 'x'; it has: none"),
    ],
)
def test_option_that_cannot_be_read_is_refused(
    argv: tuple[str, ...], message: str
) -> None:
    """With how to write it."""
    with pytest.raises(InputError, match=message):
        scoring_options(parsed(*argv))


def test_unknown_scorer_is_named() -> None:
    """With the nearest."""
    with pytest.raises(UnknownIdError, match="did you mean 'pickscore'"):
        scoring_options(parsed("--scorer", "pickscores"))


def test_payloads_are_drawn_split_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the folder of wildcards that was given."""
    (tmp_path / "pet.txt").write_text("cat\ndog\n")
    listed = tmp_path / "list" / "p.txt"
    listed.parent.mkdir()
    listed.write_text("a __pet__ --wildcard_type random --freeu 1\nb\nc\nd\n")
    args = parsed("--wildcards", str(tmp_path), "--unseen-share", "0.25")
    args.payloads = [listed]
    found = payload_options(args)
    assert len(found["payloads"]) == 3
    assert len(found["held_out_payloads"]) == 1
    prompts = {p.prompt for p in (*found["payloads"], *found["held_out_payloads"])}
    assert prompts - {"a cat", "a dog"} == {"b", "c", "d"}
    assert "line 1: unknown fields are ignored: freeu." in capsys.readouterr().out
    args.unseen = [listed]
    with pytest.raises(InputError, match="Give --unseen or --unseen-share, not both"):
        payload_options(args)
    args.payloads, args.unseen = [listed.parent / "gone.json"], []
    with pytest.raises(PayloadError, match=r"gone\.json cannot be read"):
        payload_options(args)


def test_rescoring_needs_a_weight_and_a_scorer_of_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then it says what is the best now."""
    from lib_merge.autombw.records import ImageScore, TrialRecord, save_record
    from lib_merge.autombw.scoring import ScoringSettings
    from lib_merge.autombw.study import create_study
    from tests.support.fake_study_host import fake_settings

    judges = (Judge("image_reward"), Judge("pickscore"))
    settings = fake_settings(name="s", scoring=ScoringSettings(judges))
    study = create_study(tmp_path, settings)
    for number, raws in enumerate(((1.0, 0.0), (0.0, 2.0))):
        named = dict(zip(("image_reward", "pickscore"), raws, strict=True))
        image = ImageScore("p00_s0.png", "cat", 1, "x", named, 0.5)
        record = TrialRecord(number, number, 0, "", {}, "complete", 0.5, (image,))
        save_record(study.trial_dir(number), record)
    out = ["--out", str(tmp_path)]
    assert main(["study", "rescore", "s", "--scorer", "pickscore=0", *out]) == 0
    text = capsys.readouterr().out
    assert "pickscore         weight 0" in text
    assert "best now          trial 0, score 0.7311" in text
    assert main(["study", "rescore", "s", "--scorer", "pickscore", *out]) == 2
    assert "write ID=WEIGHT" in capsys.readouterr().err
    assert main(["study", "rescore", "s", "--scorer", "hpsv2=1", *out]) == 2
    assert "did not judge study 's'" in capsys.readouterr().err
