"""A file of prompts is read word for word, faults are named by line, and a job's noise hangs on its line alone."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prompts.jobs import Job, read_jobs, share

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def file(tmp_path):
    def make(content: str | bytes, name: str = "prompts.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def test_a_text_file_holds_a_prompt_a_line(file):
    text = '\ufeff# mine\r\n\r\n  a {red}, "circle" ${x}\u2028up \r\nein größerer Kreis 圆\n\t# no\n#\n\na # b'
    jobs = read_jobs(file(text, "prompts.txt"))
    assert [job.prompt for job in jobs] == ['a {red}, "circle" ${x}\u2028up', "ein größerer Kreis 圆", "a # b"]
    assert [job.line for job in jobs] == [3, 4, 8]
    assert [job.sample for job in jobs] == [2, 3, 7]
    assert {(job.negative, job.seed, job.image, job.frames, job.fps) for job in jobs} == {(None,) * 5}


def test_a_jsonl_file_holds_a_job_a_line(file):
    path = file('{"prompt": "a", "negative": "", "seed": 7, "frames": 33, "fps": 12}\n\n{"image": "in/first.png", "sample": 5, "seed": null}\n')
    first, second = read_jobs(path)
    assert first == Job("a", "", 7, 0, frames=33, fps=12, source=str(path), line=1)
    assert second == Job(sample=5, image="in/first.png", source=str(path), line=3)
    assert second.image_path == path.parent / "in/first.png"
    assert second.where == f"{path}, line 3"
    assert first.image_path is None


def test_a_line_that_changes_leaves_the_others_as_they_are(file):
    before = read_jobs(file("a\nb\nc", "prompts.txt"))
    after = read_jobs(file("a\n# b\nc\nd", "prompts.txt"))
    assert [(job.sample, job.key) for job in after[:2]] == [(before[place].sample, before[place].key) for place in (0, 2)]


def test_a_key_tells_jobs_apart_and_is_the_same_everywhere(file):
    text = '{"prompt": "a"}\n{"prompt": "a"}\n{"prompt": "a", "seed": 1}\n{"prompt": "b"}\n{"prompt": "a", "negative": ""}\n{"prompt": "\\ud800 圆"}'
    path = file(text)
    keys = [job.key for job in read_jobs(path)]
    assert len(set(keys)) == len(keys)
    assert keys == [job.key for job in read_jobs(path.rename(path.parent / "moved.jsonl"))], "wherever it lies"
    code = "import sys; from data.prompts.jobs import read_jobs; print(*[job.key for job in read_jobs(sys.argv[1])])"
    elsewhere = subprocess.run([sys.executable, "-c", code, path.parent / "moved.jsonl"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert elsewhere.stdout.split() == keys
    assert Job("a", sample=1).key == Job("a", sample=1, source="x.txt", line=9).key


def test_variations_share_no_noise_and_do_not_depend_on_their_count():
    jobs = [Job(sample=sample) for sample in (0, 1, 2**32 - 1)]
    numbers = [job.variation(number) for job in jobs for number in range(20)]
    assert len(set(numbers)) == len(numbers)
    assert [job.variation(0) for job in jobs] == [job.sample for job in jobs]
    assert Job(sample=2**64 - 1).variation(3) < 2**64


@given(st.integers(0, 40), st.integers(1, 9))
def test_processes_share_all_jobs_evenly(count, ranks):
    jobs = [Job(sample=sample) for sample in range(count)]
    shares = [share(jobs, rank, ranks) for rank in range(ranks)]
    assert Counter(job for part in shares for job in part) == Counter(jobs)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_does_not_exist_is_refused(rank, ranks):
    with pytest.raises(ValueError, match=f"rank={rank} of ranks={ranks} is none"):
        share([Job()], rank, ranks)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"promt": "a"}', r"'promt' is no key of a job here \(did you mean 'prompt'\?\)"),
        ('{"prompt": "a", "line": 3}', "'line' is no key"),
        ('{"prompt": "a", "prompt": "b"}', "'prompt' is said twice"),
        ('{"prompt": "a"', "not a JSON object"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ("a red circle", "not a JSON object"),
        ('["a"]', "got a list, wanted an object"),
        ("{}", "says neither prompt nor image"),
        ('{"prompt": null}', "says neither prompt nor image"),
        ('{"prompt": 3}', "prompt=3 must be a text"),
        ('{"image": ""}', "image='' must be a text"),
        ('{"prompt": "a", "seed": -1}', "seed=-1 must be a whole number from 0 on, below"),
        ('{"prompt": "a", "seed": 18446744073709551616}', "seed=18446744073709551616 must be"),
        ('{"prompt": "a", "frames": 17.0}', "frames=17.0 must be a whole number from 1 on"),
        ('{"prompt": "a", "frames": true}', "frames=True must be"),
        ('{"prompt": "a", "fps": NaN}', "fps=nan must be a number above 0"),
        ('{"prompt": "a", "fps": 0}', "fps=0 must be"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(file, line, says):
    with pytest.raises(ValueError, match=rf"prompts\.jsonl, line 2: .*{says}"):
        read_jobs(file('{"prompt": "sound"}\n' + line))


def test_keys_that_a_task_does_not_know_are_refused(file):
    path = file(json.dumps({"prompt": "a", "image": "b.png"}))
    assert read_jobs(path)[0].image == "b.png"
    with pytest.raises(ValueError, match=r"line 1: 'image' is no key of a job here \(there are: prompt, negative\)"):
        read_jobs(path, ("prompt", "negative"))


def test_a_file_that_is_none_of_prompts_is_refused(file, tmp_path):
    with pytest.raises(ValueError, match=r"prompts\.txt, line 2: not UTF-8 \(.* at byte 2\). Save the file as UTF-8"):
        read_jobs(file("é\nca\xe9".encode("latin-1").replace(b"\xe9\n", b"e\n"), "prompts.txt"))
    with pytest.raises(ValueError, match=r"line 1: not UTF-8"):
        read_jobs(file("a".encode("utf-16"), "prompts.txt"))
    for content in ("", "\n# nothing\n"):
        with pytest.raises(ValueError, match="holds no prompt"):
            read_jobs(file(content, "prompts.txt"))
    with pytest.raises(ValueError, match=r"a\.csv is no file of prompts: wanted \.txt .* or \.jsonl"):
        read_jobs(file("a", "a.csv"))
    with pytest.raises(ValueError, match=r"no\.txt cannot be read \(No such file"):
        read_jobs(tmp_path / "no.txt")
