"""The study in miniature: it runs, stops, goes on, reuses, and its page stands alone and says what the numbers say."""

import html
import json
import re
import signal
import subprocess
import threading
import time
from html.parser import HTMLParser

import pytest

from models.progress import training_progress
from models.study import jobs, plans, report, scheduler
from models.study.experiment_plans import EXPERIMENTS
from models.study.sections import SECTIONS
from models.train import Run, Training


def tiny(sizes: dict) -> dict:
    """Return an experiment with the same variants, at sizes that take no time."""
    run = {"width": 16, "layers": 1, "heads": 2, "batch": 2, "steps": 4, "evaluate_every": 2}
    run |= (
        {"pairs": (2, 3)}
        if sizes["run"]["task"] == "recall"
        else {"length": {"needle": 96, "tones": 64}.get(sizes["run"]["task"], 20)}
    )
    variants = {
        name: {key: value for key, value in own.items() if key not in ("width", "heads", "chunk_size")}
        for name, own in sizes["variants"].items()
    }
    lengths = {"recall": [4, 5], "tones": [32]}.get(sizes.get("kind"), [96, 300])
    other = {"lengths": lengths, "sequences": 4} if "kind" in sizes else {}
    return {**sizes, "run": {**sizes["run"], **run}, "variants": variants, **other, "seeds": [0]}


TINY: plans.Sizes = {
    "proofs": {"profile": "quick", "names": []},
    "text": {"width": 16, "layers": 1, "heads": 2, "batch": 2, "length": 12, "steps": 4, "evaluate_every": 2},
    "recall": {"width": 16, "layers": 1, "heads": 2, "batch": 4, "pairs": (2, 3), "steps": 4, "evaluate_every": 2},
    "hippo": {"sizes": [2, 4, 8], "samples": 50, "cycles": 2, "window": 0.5, "seed": 0},
    "through time": {
        "width": 3,
        "lengths": [1, 4],
        "norms": [0.5, 1.5],
        "radius": 0.5,
        "biases": [0.0, 8.0],
        "inputs": 0.1,
        "seed": 0,
    },
    "memory": {"lengths": [16, 32], "limit": 1.0},
    "long memory": {"lengths": [64], "limit": 1.0},
    "cost": {"lengths": [2, 8], "repeats": 2},
    "growth": {
        "config": {"width": 16, "layers": 1, "heads": 2, "vocab": 8},
        "training": [2, 8],
        "generation": [2, 8],
        "repeats": {"training": 1, "generation": 1},
    },
    "steps": {
        "config": {"width": 16, "layers": 1, "heads": 2, "vocab": 8},
        "training": [8],
        "generation": [],
        "repeats": {"training": 1, "generation": 0},
        "mixers": ["linear_attention"],
        "batches": [],
    },
    "scans": {"forms": ["fused", "associative"], "states": [2, 4], "length": 8, "channels": 3, "repeats": 1},
    "throughput": {
        "configs": {m: {"mixer": m, "width": 16, "layers": 1, "heads": 2, "vocab": 8} for m in ("softmax", "mamba")},
        "training": [],
        "generation": [2, 8],
        "repeats": {"training": 0, "generation": 1},
        "batches": [2],
    },
    "copying": {
        "task": "selective_copying",
        "width": 16,
        "layers": 1,
        "heads": 2,
        "batch": 2,
        "length": 20,
        "steps": 4,
        "evaluate_every": 2,
    },
    "induction": {
        "run": {
            "task": "induction",
            "mixer": "mamba",
            "width": 16,
            "layers": 1,
            "heads": 2,
            "batch": 2,
            "length": 12,
            "steps": 4,
            "evaluate_every": 2,
        },
        "lengths": [8, 16, 600],
        "sequences": 4,
    },
    "digits": {"task": "digits", "width": 16, "layers": 1, "heads": 2, "batch": 2, "steps": 4, "evaluate_every": 2},
    "needle": {
        "run": {
            "task": "needle",
            "width": 16,
            "layers": 1,
            "heads": 2,
            "batch": 2,
            "length": 96,
            "steps": 4,
            "evaluate_every": 2,
        },
        "lengths": [96, 300],
        "sequences": 4,
    },
    "arena": {
        "mixers": dict.fromkeys(plans.CONTENDERS, {"width": 16, "heads": 2}),
        "tasks": {
            name: {"task": task, "layers": 1, "batch": 2, "steps": 4, "evaluate_every": 2, "length": length}
            for name, task, length in (
                ("listops", "listops", 16),
                ("pathfinder", "pathfinder", 256),
                ("long-pathfinder", "pathfinder", 1024),
                ("digits", "digits", 1),
            )
        },
        "seeds": [0],
    },
    "translation": {
        task: {
            "run": {"task": task, "width": 16, "layers": 1, "heads": 2, "batch": 2, "steps": 4, "evaluate_every": 2},
            "example": example,
        }
        for task, example in (("dates", "3 May 1987"), ("numbers", "12"))
    }
    | {"seeds": [0]},
    "surprise": {"length": 20, "period": 4, "planted": [12], "rate": 1.0, "kept": 0.5, "forgotten": 0.01, "seed": 0},
    "rotation": {"seed": 0, "rate": 0.01, "images": 4},
    "controls": {"rate": 0.01, "images": 4, "training": 2, "tuning": 1, "seeds": [0]},
    "large digits": {
        "sizes": {"side": 16, "patch": 8, "width": 8, "layers": 1, "heads": 2},
        "training": {"steps": 2, "batch": 4, "rate": 1e-3, "decay": 0.1},
    },
    "shares of digits": {
        "sizes": {"side": 8, "patch": 4, "width": 8, "layers": 1, "heads": 2, "channels": [2, 3]},
        "training": {"steps": 2, "batch": 4, "rate": 1e-3, "decay": 0.1},
        "shares": [0.25, 1],
        "seeds": [0],
    },
    "transfer": {
        "sizes": {"side": 8, "patch": 4, "width": 8, "layers": 1, "heads": 2},
        "training": {"steps": 2, "batch": 4, "rate": 1e-3, "decay": 0.1},
        "shots": [1, 2],
        "steps": 2,
        "seeds": [0],
    },
    "clip": {
        "training": {"pairs": 30, "steps": 2, "batch": 4, "width": 8, "layers": (1, 1), "evaluate_every": 1},
        "seeds": [0],
        "fewer": [10],
    },
    "sam": {
        "training": {"steps": 3, "batch": 2, "prompts": 2, "rounds": 2, "warmup": 1},
        "model": {
            "image": {
                "image": 16,
                "patch": 4,
                "width": 8,
                "layers": 1,
                "heads": 2,
                "hidden": 8,
                "window": 2,
                "global_layers": (),
                "output": 16,
            },
            "prompt": {"channels": 4},
            "decoder": {"layers": 1, "heads": 2, "hidden": 8, "downsample": 1, "iou_hidden": 8},
        },
        "measured": {
            "every": 2,
            "scenes while training": 2,
            "scenes": 5,
            "searched": 2,
            "grid": {"side": 4, "least_iou": -1.0, "least_stability": 0.1},
        },
        "seeds": [0],
    },
    "experiments": {name: tiny(sizes) for name, sizes in EXPERIMENTS.items()},
    "deep": {
        "text": {"width": 16, "layers": 1, "heads": 2, "batch": 2, "length": 12, "steps": 4, "evaluate_every": 2},
        "recall": {"width": 16, "layers": 1, "heads": 2, "batch": 4, "pairs": (2, 3), "steps": 4, "evaluate_every": 2},
    },
}
TINY["short sam"] = TINY["sam"]
LINK = '<a href="https://arxiv.org/abs/2407.04620" title="RNNs &quot;at&quot; &lt; rest">Sun et al. 2024 (TTT)</a>'


def cited(place):
    label, url = "Sun et al. 2024 (TTT)", "https://arxiv.org/abs/2407.04620"
    return {"text": f"{label}, {place}", "label": label, "place": place, "title": 'RNNs "at" < rest', "url": url}


STATED = [
    {
        "identity": f"{name}[{case}]",
        "sentence": name,
        "source": "Sun et al. 2024 (TTT), eq. 1 < 2",
        "chapter": chapter,
        "relation": "=",
        "file": "proofs/identities/ttt.py",
        "line": 7,
        "citations": [cited("eq. 1 < 2")],
    }
    for name, case, chapter in [
        ("a < b", "x", "the_rule"),
        ("a < b", "y", "the_rule"),
        ("c", "x", "the_rule"),
        ("d", "x", "the_other"),
    ]
]
PROOFS = [
    {
        "identity": f"{name}[{case}]",
        "sentence": name,
        "source": "eq. 1",
        "chapter": "the_rule",
        "kind": "identity",
        "relation": "=",
        "verdict": verdict,
        "strength": "checked"
        if verdict == "failed"
        else "proven at the sizes drawn, up to a chance of at most 8.7e-19",
        "worst_error": 1e-17,
        "bound": 1e-15,
        "examples": 10,
        "seconds": 0.1,
        "systems": {
            "fractions": {"status": "passed", "symbol": "ℚ"},
            "modular": {"status": "passed", "symbol": "𝔽ₚ", "false_pass": 8.67e-19},
            "cupy": {"status": "not installed"},
        },
    }
    for name, case, verdict in [("a < b", "x", "holds"), ("a < b", "y", "holds"), ("c", "x", "failed")]
]

CLAIMS = [
    {
        "talk": "talk-titans",
        "title": "talk on <Titans>",
        "full_title": "Can <Titans> surpass Transformers?",
        "url": "https://www.youtube.com/watch?v=4pNugYLtECM",
        "number": 1,
        "place": "02:16",
        "said": "a is below b.",
        "verdict": "true if",
        "condition": "b is positive",
        "precise": "a ≤ b.",
        "missing": "",
        "shown": True,
        "statements": [{**STATED[0], "name": "a < b"}],
        "study": [{"name": "recall-plain-softmax", "section": "recall"}, {"name": "text", "section": "text"}],
        "source": "",
        "citations": [],
    },
    {
        "talk": "talk-mamba",
        "title": "talk on Mamba",
        "full_title": "What is the Mamba architecture?",
        "url": "",
        "number": 2,
        "place": "slide 4",
        "said": "c is d.",
        "verdict": "wrong",
        "condition": "",
        "precise": "c differs from d.",
        "missing": "a counterexample",
        "shown": False,
        "statements": [],
        "study": [],
        "source": "Sun et al. 2024 (TTT), section 1; talk on Mamba, slide 4",
        "citations": [
            cited("section 1"),
            {"text": 'talk on Mamba, "A & B", slide 4', "label": "talk on Mamba", "title": "A & B", "url": ""},
        ],
    },
]
MEMORY = {
    "title": "Attention",
    "result_bytes": {"16": 2**20, "32": 2**21},
    "implementations": {
        "quadratic": {
            "measured": {"16": {"bytes": 2**24, "seconds": 1.0}},
            "missing": {"32": "a step would take over 1 GiB"},
        },
        "lazy": {"measured": {str(T): {"bytes": T * 2**18, "seconds": 1.0} for T in (16, 32)}, "missing": {}},
    },
}


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
    """Run a study, with the results given of the statements and of memory, since other programs measure them."""
    out = tmp_path_factory.mktemp("study")
    given = {
        "proofs": {"proofs": PROOFS, "statements": STATED, "claims": CLAIMS, "exit_code": 0},
        "attention-memory": MEMORY,
    }
    for job in plans.plan(TINY):
        if job.name in given:
            job.folder(out).mkdir(parents=True)
            (job.folder(out) / "done.json").write_text(json.dumps(given[job.name]))
    assert scheduler.study(out, TINY) == 0
    return out


class Page(HTMLParser):
    """Collects what a browser would go and fetch, and whether tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.followed: list[str] = []  # only when a reader asks
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        named = {"href"} if tag == "a" else {"src", "href", "xlink:href", "srcset", "data"}
        links = [value for name, value in attributes if name in named]
        (self.followed if tag == "a" else self.fetched).extend(links)
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_the_page_fetches_nothing(study_folder):
    text = (study_folder / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert [address for address in page.fetched if not address.startswith(("#", "data:image/png;"))] == []
    assert "<script" not in text and "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "http://" not in text and text.count("https://") == text.count('<a href="https://')


def test_the_page_names_every_mixer_system_and_setting(study_folder):
    text = (study_folder / "report.html").read_text()
    for words in (
        "gated delta rule",
        "softmax",
        "fractions",
        "1 of the 2 statements that were checked hold",
        "2 of the 3 cases are proven at the sizes drawn",
        "a chance of at most 8.7e-19",
        "a &lt; b",
        "Failed: c",
        "2 of 2",
        "seed 0",
        "NumPy",
        "bits per byte",
        "numbers in the state",
        "No measured norm exceeds its bound.",
        "Fitted exponents of training: softmax ",
        "a step would take over 1 GiB",
        "After 2 steps this ViT of ",
        "for 3 steps only. After one click its mean IoU is ",
        "No finished result with these settings: T = 64 to 64.",
    ):
        assert words in text, words
    assert text.count("<svg") == 19
    assert "Not finished" not in text


def test_statements_are_folded_by_chapter_and_link_to_their_source_and_paper(study_folder):
    text = (study_folder / "report.html").read_text()
    page = Page()
    page.feed(text)
    names = map(html.unescape, re.findall(r'\bid="([^"]*)"', text))
    assert {link[1:] for link in page.followed if link.startswith("#")} <= set(names)
    files = [link for link in page.followed if not link.startswith(("#", "https://"))]
    assert len(files) == 3 + 1 and {link.partition("#")[2] for link in files} == {"L7"}
    for link in files:
        assert (study_folder / link.partition("#")[0]).resolve() == jobs.ROOT / "proofs" / "identities" / "ttt.py"
    assert f"{LINK}, eq. 1 &lt; 2" in text
    assert text.count("<details") == 2
    assert re.search(r"<summary>the rule: 1 hold, <span class=\"bad\">1 fail</span></summary>", text)
    assert "<summary>the other: 0 hold, 1 not run</summary>" in text
    assert "python -m proofs check the_other" in text and "1 more were not run here" in text


def test_claims_lead_to_what_shows_them_and_are_filtered_without_scripts(study_folder):
    text = (study_folder / "report.html").read_text()
    assert "Of the 2 claims of 2 talks, 0 are true, 1 are true under a condition, 0 are loose, 1 are wrong;" in text
    shown, missing = (text.partition(f'<tr id="claim-{n}"')[2].partition("</tr>")[0] for n in (1, 2))
    assert 'class="claim true-if">' in shown and 'class="claim wrong missing">' in missing
    for words in ("<em>If b is positive.</em> a ≤ b.", 'href="#a &lt; b"', "#L7", 'href="#recall"', 'href="#text"'):
        assert words in shown, words
    assert f"{LINK}, section 1; talk on Mamba, &quot;A &amp; B&quot;, slide 4" in missing
    assert "Not shown yet: a counterexample." in missing
    inputs = set(re.findall(r'<input [^>]*id="([^"]*)"', text))
    assert inputs == {"only-talks", "only-talk-titans", "only-talk-mamba", "only-verdicts", "only-missing"} | {
        f"only-{name}" for name in ("true", "true-if", "loose", "wrong")
    }
    assert set(re.findall(r"#(only-[a-z-]*):checked ~ ", text)) == inputs - {"only-talks", "only-verdicts"}


def test_the_page_opens_with_results_and_pictures(study_folder):
    text = (study_folder / "report.html").read_text()
    positions = [
        text.index(words) for words in ('id="contents"', 'id="results"', "<svg", 'id="cost"', 'id="statements"')
    ]
    assert positions == sorted(positions)


def test_control_characters_of_a_sample_are_shown_as_escapes():
    assert report.printable("a\0b\x1b[1m\tc\né\u2028") == "a\\x00b\\x1b[1m\tc\né\\u2028"


def test_what_was_not_learned_has_a_subject():
    rows = [{"mixer": "softmax", "step": 150, "reached": None, "held": 0, "accuracies": {6: 0.65}}]
    assert report._recall_sentences(rows, 6)[0] == (
        "Accuracy with 6 pairs stayed below 90% for 150 steps: softmax (65% at the end)."
    )


def test_names_in_the_page_are_unique(study_folder):
    names = re.findall(r'\bid="([^"]*)"', (study_folder / "report.html").read_text())
    assert len(names) == len(set(names))


def test_the_contents_are_the_sections(study_folder):
    headings = re.findall(r'<h2 id="([^"]*)"', (study_folder / "report.html").read_text())
    assert headings == ["contents", *SECTIONS]


def test_the_raw_numbers_are_beside_it(study_folder):
    results = json.loads((study_folder / "results.json").read_text())
    planned = {name for name, job in results["jobs"].items() if job["planned"]}
    assert len(planned) == 40 and len(results["jobs"]) == 40 + 27 + 20 + 5 + 41
    assert {name for name, job in results["jobs"].items() if job["result"]} == planned
    assert set(results["machine"]) >= {"processor", "Python", "NumPy", "commit", "date"}
    rows = results["jobs"]["cost-softmax"]["result"]["rows"]
    assert [row["T"] for row in rows] == [2, 8]
    assert rows[1]["state_numbers"] - rows[0]["state_numbers"] == 6 * 2 * 16


def test_a_second_run_computes_nothing_again(study_folder, monkeypatch):
    def never(*_):
        raise AssertionError("a finished job was started again")

    monkeypatch.setattr(jobs, "start", never)
    assert scheduler.study(study_folder, TINY) == 0


def test_other_settings_are_another_job(study_folder):
    job = plans.plan(TINY)[1]
    other = plans.plan({**TINY, "text": {**TINY["text"], "steps": 5}})[1]
    assert job.result(study_folder) is not None and other.result(study_folder) is None


def test_a_study_that_has_hardly_begun_has_a_page(tmp_path):
    results = scheduler.collect(plans.plan(TINY), plans.long_jobs(TINY), tmp_path)
    text = report.render({**results, "quick": True, "errors": {"text-softmax": "no <room>"}}, tmp_path / "report.html")
    assert "Not finished: proofs, text-softmax" in text
    assert "text-softmax failed: no &lt;room&gt;" in text
    assert "The checks have not finished" in text and "Not measured yet" in text


def test_stopping_lets_a_job_save_itself_and_go_on(tmp_path):
    sizes = {**TINY, "text": {**TINY["text"], "steps": 5000, "width": 32}}
    job = plans.plan(sizes)[1]
    stop = threading.Event()

    def stop_when_it_runs() -> None:
        until(lambda: len(job.records(tmp_path)) >= 5, "the job never began")
        stop.set()

    threading.Thread(target=stop_when_it_runs, daemon=True).start()
    with training_progress() as progress:
        hands = scheduler.Scheduler([job], tmp_path, progress)
        hands.run(stop)
    assert hands.errors == {} and job.result(tmp_path) is None
    reached = job.records(tmp_path)[-1]["step"]
    process = jobs.start(job, tmp_path)
    until(lambda: job.records(tmp_path)[-1]["step"] > reached or process.poll() is not None, "the job never went on")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == jobs.STOPPED
    steps = [record["step"] for record in job.records(tmp_path)]
    assert steps == list(range(len(steps))) and steps[-1] > reached


def test_a_job_that_fails_is_told_and_the_others_go_on(tmp_path):
    planned = zip("ab", plans.plan(TINY)[1:3], strict=True)
    broken, fine = (jobs.Job(f"text-{n}", "train", job.settings, 4) for n, job in planned)
    broken.settings["mixer"] = "none"
    with training_progress() as progress:
        hands = scheduler.Scheduler([broken, fine], tmp_path, progress)
        hands.run(threading.Event())
    assert list(hands.errors) == ["text-a"]
    assert hands.errors["text-a"].startswith("python -m models: mixer: expected one of")
    assert fine.result(tmp_path) is not None


def test_a_quick_study_compares_by_nothing_that_needs_more_steps(tmp_path):
    sizes = {**TINY, "mixers": plans.QUICK["mixers"]}
    planned = plans.plan(sizes)
    trained = [job.name for job in planned if job.kind == "train"]
    assert trained == ["text-ttt_linear", *(f"recall-overwritten-{m}" for m in (*plans.COMPARED, plans.LEARNER))]
    results = scheduler.collect(planned, plans.long_jobs(sizes), tmp_path)
    text = report.render({**results, "quick": True, "errors": {}}, tmp_path / "report.html")
    assert "This is the quick study" in text and "Recall, every key once" not in text


def test_the_recall_of_a_quick_study_has_the_order_of_the_whole_one(tmp_path):
    """In the whole study, as in the README's picture, the delta rule is far above linear attention."""
    right = {}
    for mixer in ("delta_rule", "linear_attention"):
        job = next(job for job in plans.plan(plans.QUICK) if job.name == f"recall-overwritten-{mixer}")
        training = Training.start(Run(**job.settings), tmp_path / mixer)
        for _ in training.steps():
            pass
        right[mixer] = training.evaluate()["held_out_accuracy"]["4"]
    assert right["delta_rule"] > 0.8 and right["linear_attention"] < 0.5


def until(holds, otherwise):
    """Wait for something to hold, for a minute at most."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def test_an_orphan_stops_by_itself(tmp_path):
    """A job whose study was killed must not train on unseen."""
    sizes = {**TINY, "text": {**TINY["text"], "steps": 100000, "width": 32}}
    job = plans.plan(sizes)[1]
    parent = subprocess.Popen(
        [
            jobs.sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from models.study import jobs, scheduler\n"
            f"jobs.start(jobs.Job({job.name!r}, {job.kind!r}, {job.settings!r}), Path({str(tmp_path)!r}))\n"
            "print('started', flush=True); time.sleep(60)",
        ],
        cwd=jobs.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None and parent.stdout.readline() == "started\n"
    until(lambda: len(job.records(tmp_path)) >= 3, "the job never began")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until((job.folder(tmp_path) / "checkpoint.safetensors").exists, "the orphan trains on")
