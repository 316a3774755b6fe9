import errno
import json
import os
import pickle
import resource
import signal
import struct
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.cache import build as store_build
from data.cache import store
from data.cache.build import build
from data.cache.store import Identity, Store
from runtime import files

SHARDS = [[("0", "1"), ("2", "3")], [("4",), ("5", "6"), ("7", "8")], [("9",)], [("10", "é,\n"), ("11",)]]
PARTS = [part for shard in SHARDS for part in shard]
BAD = {"3", "7", "8", "9"}  # one of a part, a whole part, a whole shard
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}  # audit events, before it happens
TRACED = {store.__file__, store_build.__file__, files.__file__, __file__}


@pytest.fixture(autouse=True)
def poll_often(monkeypatch):
    monkeypatch.setattr(store_build, "POLL_S", 0.01)


def identity(**facts):
    reasons = {"vae": "another VAE (weights {0:.12}, now {1:.12})", "files": "other files (or files that were touched since)"}
    return Identity("latent", "data.latents", {"vae": "vae-a", "clips": "5 frames", "files": "f", **facts}, reasons)


def value(key):
    number = len(key) + ord(key[0])
    return torch.randn(1 + number % 3, 2 + number % 2, generator=torch.Generator().manual_seed(number)).to(DTYPES[number % 4])


def maker(log=None, pause_s=0.0):
    """What a build calls; it notes each part that it makes in the file `log`, which any process may append to."""

    def make(parts):
        for part in parts:
            time.sleep(pause_s)
            if log:
                with open(log, "a", encoding="utf-8") as file:
                    file.write(f"{json.dumps(part)}\n")
            yield {key: value(key) for key in part if key not in BAD}, [{"key": key, "why": "ü{0}"} for key in part if key in BAD]

    return make


def run(folder, log=None, pause_s=0.0, shards=SHARDS, facts=None, **options):
    return build(folder, identity(**facts or {}), shards, maker(log, pause_s), **options)


def run_until(part, folder, log):
    """A build that is stopped when it should make `part`."""

    def make(parts):
        for made in maker(log)(parts):
            if work(log)[-1] == part:
                raise KeyboardInterrupt
            yield made

    with pytest.raises(KeyboardInterrupt):
        build(folder, identity(), SHARDS, make)


def work(log):
    return [tuple(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def child(function):
    """Start `function` in a process of its own; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    return pid


def ended(pid):
    """Exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def count_lines(at_line):
    """Call at_line() before every line of our files that is run from now on."""

    def tracer(frame, event, _):
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            at_line()
        return tracer

    sys.settrace(tracer)


def killed_at(moment, watch, function):
    """Run `function` in a process that is killed at the `moment`th thing that `watch` sees."""
    left = iter(range(1, moment))

    def watched():
        watch(lambda: None if next(left, None) else die())
        function()

    return ended(child(watched))


def check_shards(folder):
    """Every shard whose record is there is whole."""
    for record in folder.glob("shard-*.json"):
        facts = json.loads(record.read_bytes())
        shard = record.with_suffix(".safetensors")
        assert (shard.stat().st_size, store.sha256(shard)) == (facts["bytes"], facts["sha256"])
        assert sorted(load_file(shard)) == sorted(facts["keys"])


def check_restart(folder, log, wanted, shards=SHARDS):
    check_shards(folder)
    run(folder, log, shards=shards)
    assert contents(folder) == wanted
    done, parts = work(log), [part for shard in shards for part in shard]
    assert set(done) == set(parts)
    assert len(done) <= len(parts) + 1, "more than the part that was being made was made again"


@pytest.fixture
def undisturbed(tmp_path):
    run(tmp_path / "undisturbed")
    return contents(tmp_path / "undisturbed")


def test_every_tensor_comes_back_bit_for_bit_whatever_its_shape_and_dtype(tmp_path):
    ours = run(tmp_path)
    wanted = {key: value(key) for part in PARTS for key in part if key not in BAD}
    assert list(ours.keys()) == list(ours.load()) == list(wanted)
    assert {tensor.dtype for tensor in wanted.values()} == set(DTYPES)
    for key, tensor in wanted.items():
        for got in (ours.get(key), ours.load()[key]):
            assert got.dtype == tensor.dtype
            assert torch.equal(got, tensor)
    assert (len(ours), "0" in ours, "3" in ours) == (len(wanted), True, False)
    assert ours.bytes == sum((tmp_path / f"shard-0000{number}.safetensors").stat().st_size for number in range(4))
    with pytest.raises(KeyError):
        ours.get("3")


def test_keys_without_a_tensor_are_noted_in_order_even_if_they_fill_a_shard(tmp_path):
    assert run(tmp_path).notes == tuple({"key": key, "why": "ü{0}"} for key in ("3", "7", "8", "9"))


def test_a_tensor_that_was_given_out_is_the_readers_own(tmp_path):
    ours = run(tmp_path)
    ours.get("0").zero_()
    assert torch.equal(ours.get("0"), value("0"))
    batch = torch.arange(6.0).view(2, 3)
    views = {"a": batch[0], "b": batch[1], "c": batch.T}
    kept = build(tmp_path / "views", identity(), [[("a", "b", "c")]], lambda parts: [(views, []) for _ in parts])
    assert [kept.get(key).tolist() for key in "abc"] == [[0, 1, 2], [3, 4, 5], [[0, 3], [1, 4], [2, 5]]]


def test_a_store_goes_to_workers_without_its_open_files(tmp_path):
    ours = run(tmp_path)
    ours.get("0")
    other = pickle.loads(pickle.dumps(ours))
    assert (ours._open.keys(), other._open) == ({0}, {})
    assert torch.equal(other.get("11"), value("11"))
    assert other.notes == ours.notes


def test_a_complete_store_is_only_looked_at(tmp_path):
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    build(tmp_path, identity(), SHARDS, lambda _: pytest.fail("made again"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    shards = [f"shard-0000{number}.{ending}" for number in range(4) for ending in ("json", "safetensors")]
    assert sorted(path.name for path in before) == ["build.lock", "manifest.json", *shards]


def test_others_may_read_a_store_as_the_umask_says(tmp_path):
    run(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~current_umask()}


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def count_changes(at_change):
    """Call at_change() before every change of the disk that this process makes from now on."""

    def hook(event, arguments):
        if event in CHANGES or (event == "open" and arguments[2] & os.O_CREAT):
            at_change()

    sys.addaudithook(hook)


def check_kills(tmp_path, watch):
    """Kill a build before each thing that `watch` sees, in turn, and start it again; returns how many there are."""
    shards = SHARDS[1:3]
    run(tmp_path / "undisturbed", shards=shards)
    wanted, moment = contents(tmp_path / "undisturbed"), 1
    while True:
        folder, log = tmp_path / f"cut-{moment}", tmp_path / f"{moment}.log"
        status = killed_at(moment, watch, lambda folder=folder, log=log: run(folder, log, shards=shards))
        if status == 0:
            return moment - 1
        assert status == -signal.SIGKILL
        check_restart(folder, log, wanted, shards)
        moment += 1


def test_a_kill_before_any_change_of_the_disk_costs_one_part_and_changes_no_byte(tmp_path):
    assert check_kills(tmp_path, count_changes) > 30


@pytest.mark.slow
def test_a_kill_before_any_line_costs_one_part_and_changes_no_byte(tmp_path):
    assert check_kills(tmp_path, count_lines) > 300


def test_kill_after_kill_comes_to_the_same_end(tmp_path, undisturbed):
    folder, log, kills = tmp_path / "cut", tmp_path / "log", 0
    while killed_at(250 + 10 * kills, count_lines, lambda: run(folder, log)) == -signal.SIGKILL:
        check_shards(folder)
        kills += 1
    assert kills > 3
    assert contents(folder) == undisturbed
    assert len(work(log)) <= len(PARTS) + kills


@pytest.mark.parametrize("file", ["writing", "merged"])
def test_a_kill_inside_safetensors_leaves_no_litter(tmp_path, undisturbed, monkeypatch, file):
    real = store_build.save_file

    def half(tensors, path, metadata=None):
        if path.name != file:
            return real(tensors, path, metadata)
        (path.parent / ".tmpAbCdEf").write_bytes(b"half")  # what version 0.8 leaves
        return die()

    with monkeypatch.context() as patch:
        patch.setattr(store_build, "save_file", half)
        assert ended(child(lambda: run(tmp_path / "cut", tmp_path / "log"))) == -signal.SIGKILL
    check_restart(tmp_path / "cut", tmp_path / "log", undisturbed)


def test_what_a_kill_leaves_of_a_complete_store_is_cleared(tmp_path, undisturbed):
    folder = tmp_path / "undisturbed"
    (folder / "shard-00002.parts").mkdir()
    (folder / "shard-00002.parts" / "writing").write_bytes(b"half")
    (folder / "manifest.json.tmp-01234567").write_bytes(b"half")
    (folder / "notes of the user.tmp").write_bytes(b"")
    run(folder)
    assert contents(folder) == {**undisturbed, "notes of the user.tmp": b""}


def test_processes_that_build_at_once_share_the_work(tmp_path, undisturbed):
    folder, log = tmp_path / "shared", tmp_path / "log"
    pids = [child(lambda: run(folder, log, pause_s=0.01)) for _ in range(3)]
    assert [ended(pid) for pid in pids] == [0, 0, 0]
    assert contents(folder) == undisturbed
    assert sorted(work(log)) == sorted(PARTS)


def test_who_is_left_goes_on_where_another_was_killed(tmp_path, undisturbed):
    folder, log = tmp_path / "shared", tmp_path / "log"
    first = child(lambda: run(folder, log, pause_s=0.05))
    second = child(lambda: run(folder, log, pause_s=0.05))
    time.sleep(0.12)
    os.kill(first, signal.SIGKILL)
    assert (ended(first), ended(second)) == (-signal.SIGKILL, 0)
    assert contents(folder) == undisturbed
    assert len(work(log)) <= len(PARTS) + 1


def test_workers_that_outlive_a_killed_build_hold_no_lock(tmp_path, undisturbed):
    folder, log, worker = tmp_path / "cut", tmp_path / "log", tmp_path / "worker"

    def make(parts):
        for number, made in enumerate(maker(log)(parts)):
            if number == 1:
                worker.write_text(str(child(lambda: time.sleep(60))), encoding="utf-8")
                die()
            yield made

    assert ended(child(lambda: build(folder, identity(), SHARDS, make))) == -signal.SIGKILL
    try:
        run(folder, log, patience_s=0.2)
    finally:
        os.kill(int(worker.read_text(encoding="utf-8")), signal.SIGKILL)
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("ranks", [2, 5])
def test_ranks_make_the_same_files_as_one_process(tmp_path, undisturbed, ranks):
    folder, logs = tmp_path / "ranks", [tmp_path / f"{rank}.log" for rank in range(ranks)]
    pids = [child(lambda rank=rank: run(folder, logs[rank], rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert [ended(pid) for pid in pids] == [0] * ranks
    assert contents(folder) == undisturbed
    for rank, log in enumerate(logs):
        assert work(log) == [part for shard in SHARDS[rank::ranks] for part in shard]


def test_ranks_make_the_same_files_where_nothing_can_be_locked(tmp_path, undisturbed, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(store_build.fcntl, "lockf", unsupported)
    pids = [child(lambda rank=rank: run(tmp_path / "ranks", rank=rank, ranks=2)) for rank in range(2)]
    assert [ended(pid) for pid in pids] == [0, 0]
    assert contents(tmp_path / "ranks") == undisturbed


def test_a_rank_that_never_comes_is_waited_for_and_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"lacks shard-00001\.safetensors, shard-00003\.safetensors, .*nothing for 0\.001 minutes"):
        run(tmp_path, rank=0, ranks=2, patience_s=0.06)


def test_a_rank_that_works_is_waited_for_longer_than_the_patience(tmp_path):
    slow = child(lambda: run(tmp_path, rank=1, ranks=2, pause_s=0.3))
    run(tmp_path, rank=0, ranks=2, patience_s=1)  # five parts of 0.3 s
    assert ended(slow) == 0


def test_a_prefetching_maker_takes_parts_across_shards(tmp_path, undisturbed):
    ahead = []

    def make(parts):
        queue = [next(parts)]
        while queue:
            queue += [part for part in [next(parts, None) for _ in range(3)] if part is not None]
            ahead.append(len(queue))
            yield from maker()([queue.pop(0)])

    build(tmp_path / "ahead", identity(), SHARDS, make)
    assert max(ahead) > 4
    assert contents(tmp_path / "ahead") == undisturbed


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"facts": {"vae": "vae-b" * 9}}, r"from another VAE \(weights vae-a, now vae-bvae-bva\)"),
        ({"facts": {"clips": "9 frames"}}, r"from another clips \(5 frames, now 9 frames\)"),
        ({"facts": {"files": "g", "vae": "v"}}, r"from another VAE .*; other files \(or files that were touched since\)"),
        ({"facts": {"text": "t5"}}, r"from another text \(unknown, now t5\)"),
        ({"shards": [SHARDS[1], SHARDS[0], *SHARDS[2:]]}, r"from another division \(4 shards of 13 keys, \w+; now 4 shards of 13 keys, \w+\)"),
        ({"shards": [[("0", "1", "2", "3")], *SHARDS[1:]]}, r"from another division \(.*\)"),
        ({"shards": SHARDS[:3]}, r"from another division \(.*; now 3 shards of 10 keys, \w+\)"),
    ],
)
def test_a_stale_store_is_refused_by_name_and_left_alone(tmp_path, change, says, complete):
    if complete:
        run(tmp_path)
    else:
        run_until(("9",), tmp_path, tmp_path / "log")
    before = contents(tmp_path)
    message = rf"^the latents in {tmp_path} were made {says}\. Delete that folder, or set data\.latents to another one\.$"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **change)
    assert contents(tmp_path) == before


def test_shards_of_unknown_origin_are_not_taken_over(tmp_path):
    run(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"holds shards but no manifest\.json, .*data\.latents"):
        run(tmp_path)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, cut, os.unlink])
def test_a_damaged_part_is_made_again(tmp_path, undisturbed, harm):
    folder, log = tmp_path / "cut", tmp_path / "log"
    run_until(("11",), folder, log)
    (part,) = folder.glob("shard-00003.parts/00000000-*.part")
    harm(part)
    run(folder, log)
    assert contents(folder) == undisturbed
    assert sorted(work(log)) == sorted([*PARTS, *SHARDS[3]])


def test_parts_that_change_while_a_shard_is_made_are_not_merged(tmp_path):
    def make(parts):
        for number, made in enumerate(maker()(parts)):
            if number == 1:
                flip(next(tmp_path.glob("shard-00000.parts/*.part")))
            yield made

    with pytest.raises(OSError, match=r"shard-00000\.parts: parts were changed"):
        build(tmp_path, identity(), SHARDS, make)
    assert not list(tmp_path.glob("shard-*.json"))


@pytest.mark.parametrize(("harm", "says"), [(cut, "is not what was written"), (os.unlink, "is missing"), (flip, None)])
def test_a_damaged_shard_is_noticed(tmp_path, harm, says):
    ours = run(tmp_path)
    harm(tmp_path / "shard-00001.safetensors")
    if says:
        with pytest.raises(ValueError, match=rf"shard-00001\.safetensors {says}.*Delete"):
            run(tmp_path)
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors (is missing|is not what was written .its size or hash differs.).*Delete"):
        ours.load()


def header(text, length=None):
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "bomb",
    [
        header(b'{"0":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'),
        header(b'{"0":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,0]}}'),
        header(b'{"0":' * 200_000),
        header(b"[" * 200_000),
        header(b"{}", length=2**62),
        header(b"{}", length=90_000_000),
        header(b"{}"),
        b"",
    ],
)
def test_a_shard_with_a_monstrous_header_is_refused_in_little_memory(tmp_path, bomb):
    ours = run(tmp_path)
    shard, record = tmp_path / "shard-00000.safetensors", tmp_path / "shard-00000.json"
    shard.write_bytes(bomb)
    facts = {**json.loads(record.read_bytes()), "bytes": len(bomb), "sha256": store.sha256(shard)}
    record.write_text(json.dumps(facts), encoding="utf-8")
    ours = Store(tmp_path)

    def read():
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        for call in (lambda: ours.get("0"), ours.load):
            with pytest.raises(ValueError, match=r"shard-00000\.safetensors cannot be read .*Delete"):
                call()

    assert ended(child(read)) == 0


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format": 1}', '{"format": 2, "facts": []}', '{"format": 2, "facts": {}, "shards": 1e999}', "[" * 99_999]
)
def test_a_strange_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is not a latent cache's manifest .*Delete .* or set data\.latents"):
        run(tmp_path)
    with pytest.raises(ValueError, match=r"manifest\.json is not a cache's manifest"):
        Store(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[" * 99_999, '{"sha256": "", "bytes": 1, "keys": 3, "notes": []}', " " * (store.TEXT_LIMIT_BYTES + 1)])
def test_a_strange_record_is_refused(tmp_path, text):
    run(tmp_path)
    (tmp_path / "shard-00001.json").write_text(text)
    with pytest.raises(ValueError, match=r"shard-00001\.json cannot be read .*Delete"):
        run(tmp_path)


def test_what_is_not_complete_is_not_opened(tmp_path):
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        Store(tmp_path)
    run(tmp_path)
    (tmp_path / "shard-00001.json").unlink()
    with pytest.raises(ValueError, match=r"shard-00001\.json is missing"):
        Store(tmp_path)


def test_a_full_disk_is_named_and_harms_nothing(tmp_path):
    big = [[("a",), ("b",)], [("c",)]]

    def make(parts):
        return (({key: torch.full((30_000,), ord(key)) for key in part}, []) for part in parts)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # a part of 240 kB fits, a shard of 480 kB does not
        with pytest.raises(OSError, match=r"cut/shard-00000\.safetensors cannot be written .*File too large.*takes 0\.5 MiB.*data\.latents"):
            build(tmp_path / "cut", identity(), big, make)

    assert ended(child(fill)) == 0
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["build.lock", "manifest.json", "shard-00000.parts"]
    build(tmp_path / "cut", identity(), big, make)
    build(tmp_path / "whole", identity(), big, make)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"file/cache cannot be written .*data\.latents"):
        run(tmp_path / "file" / "cache")


def test_an_error_of_the_maker_keeps_what_was_made(tmp_path, undisturbed):
    run_until(("5", "6"), tmp_path / "cut", tmp_path / "log")
    assert [path.name[:8] for path in tmp_path.glob("cut/shard-00001.parts/*.part")] == ["00000000"]
    check_restart(tmp_path / "cut", tmp_path / "log", undisturbed)
