"""Cards of data sets: right numbers, right hashes, nothing private, and nothing that a stranger's names can break."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from epvf_data.cards.card import CROISSANT, PICTURE, README, bibtex, write_card
from epvf_data.cards.croissant import listed_files, live_files
from epvf_data.cards.facts import MEANING, Labels, Spread, gather
from epvf_data.cards.histogram import draw_returns, plot_returns, returns_by_source
from epvf_data.cards.readme import MARK, readme, size_category
from epvf_data.cards.words import code, latex, one_line, prose, public, public_command, quoted
from epvf_data.curation.merge import merge
from epvf_data.curation.select import filter_rows, sample, split
from epvf_data.errors import ConfigError, DatasetError, StorageError
from epvf_data.exchange.hdf5 import export_hdf5, import_hdf5
from epvf_data.pictures import encode
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.licences import licence, of_card
from epvf_data.store.lineage import Lineage
from epvf_data.store.reader import open as open_dataset
from epvf_data.store.schema import COLUMNS, EnvIdentity, Rows
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

ENV = EnvIdentity("toy", "1", "d" * 64, 4, 2, 10, 0.1, 1, {"solver": "none"})
SPEC = PolicySpec(4, 2, (3,))
NASTY = (
    "</script><script>alert(1)</script>",
    "a`b```\n# heading\n---\nlicense: mit",
    "x | y \\| z \\",
    "{\\input{/etc/passwd}}\n}\n@misc{evil,",
    '"\n- "evil": [',
    "![i](http://x/y) [l](javascript:alert) <img src=x onerror=y> &lt;b&gt;",
    "\u202eright to left\u2028line\u0085next\x1b[31m\x00",
    "$\\frac{1}{$",
    "_hidden",
    "日本 🤖",
    "-->",
    "www.example.com me@example.com",
)


def build(count, seed=0, *, spec=SPEC, episodes=2, probes=0, sources=("random", "perturbed"), **extra):
    rng = np.random.default_rng(seed)
    terminated = rng.random((count, episodes)) < 0.5
    return Rows(
        spec=spec,
        params=rng.standard_normal((count, spec.size), dtype=np.float32),
        returns=100 * rng.standard_normal((count, episodes), dtype=np.float32),
        lengths=np.where(terminated, rng.integers(1, 10, (count, episodes)), 10).astype(np.int32),
        terminated=terminated,
        truncated=~terminated,
        finite=rng.random((count, episodes)) < 0.9,
        reset_seed=rng.integers(0, 2**32, (count, 2), dtype=np.uint32),
        lineage=Lineage.build(count, source=[sources[number % len(sources)] for number in range(count)]),
        simulation={"backend": "toy", "device": "GPU of /home/alice", "dtype": "float32"},
        probe_states=np.random.default_rng(7).standard_normal((probes, 4), dtype=np.float32) if probes else None,
        probe_actions=rng.uniform(-1, 1, (count, probes, 2)).astype(np.float32) if probes else None,
        **extra,
    )


def said(command, seed=0, numpy="2.4.0"):
    return {"command": command, "seed": seed, "versions": {"numpy": numpy}, "host": "secret-host", "user": "alice"}


COMMAND = ["epvf-data", "collect", "--out", "/home/alice/sets/toy.zarr", "--set", 'bases=["/home/alice/b.st"]']


@pytest.fixture
def tmp_path():
    """A folder in memory where there is one: many small commits need no real disk behind fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def rows():
    return [build(100, 0, probes=3), build(30, 1, episodes=3), build(5, 2, spec=PolicySpec(4, 2, (5,)))]


@pytest.fixture
def toy(tmp_path, rows):
    """Three commits: two architectures, two numbers of episodes, some rows with probing states."""
    path = tmp_path / "toy.zarr"
    with Writer.open(path, ENV) as writer:
        for number, part in enumerate(rows):
            writer.commit(part, said(COMMAND, seed=number // 2, numpy=f"2.{3 + number // 2}.0"))
    return path


def front_matter(page):
    """The YAML in front as a dictionary: plain scalars, values that are also JSON, and lists of them."""
    lines = page.split("\n")
    assert lines[0] == "---"
    values = {}
    for line in lines[1 : lines.index("---", 1)]:
        if line.startswith("- "):
            values[key].append(scalar(line[2:]))
        else:
            found = re.fullmatch(r"([a-z_]+):(?: (.+))?", line)
            assert found, line
            key = found[1]
            assert key not in values
            values[key] = [] if found[2] is None else scalar(found[2])
    return values


def scalar(text):
    if text.startswith(('"', "{")):
        return json.loads(text)
    assert re.fullmatch(r"[a-z0-9.-]+", text), text
    return text == "true" if text in ("true", "false") else text


def tokens(page):
    """All tokens of the Markdown after the front matter."""
    body = page.split("\n---\n", 1)[1]
    found = MarkdownIt("commonmark").enable("table").parse(body)
    return [inner for token in found for inner in (token, *(token.children or []))]


def assert_tame(page):
    """Only our own links, pictures, headings and comment: whatever names hold stays text."""
    found = tokens(page)
    assert [token.content.strip() for token in found if token.type.startswith("html")] == [MARK]
    links = [token.attrs["href"] for token in found if token.type == "link_open"]
    own = ("https://example.org/toy", "rows.parquet")
    assert all(link.startswith("https://spdx.org/licenses/") or link in own for link in links)
    assert [token.attrs["src"] for token in found if token.type == "image"] == [PICTURE]
    assert [token.tag for token in found if token.type == "heading_open"] == ["h1"] + ["h2"] * 10
    assert [token.info for token in found if token.type == "fence"] == [
        "python",
        "python",
        "sql",
        "sh",
        "python",
        "bibtex",
    ]
    assert [token.type for token in found].count("table_open") in (3, 4)


def cells(page, first):
    row = next(line for line in page.split("\n") if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_numbers_are_those_of_numpy(toy, rows):
    seen = []
    report = write_card(toy, progress=lambda done, of: seen.append((done, of)))
    page = (toy / README).read_text()
    means = np.concatenate([part.returns.mean(1, dtype=np.float64) for part in rows])
    sources = np.concatenate([np.arange(len(part)) % 2 for part in rows])
    for name, values in (("all", means), ("`random`", means[sources == 0]), ("`perturbed`", means[sources == 1])):
        expected = [values.min(), *np.quantile(values, [0.25, 0.5, 0.75]), values.mean(), values.max()]
        assert cells(page, name) == [name, str(len(values)), *(f"{value:.2f}" for value in expected), "100 %"]
    for part, count in ((rows[0], 130), (rows[2], 5)):
        expected = [f"`{part.spec.id[:12]}`", str(part.spec), "tanh, then tanh", str(part.spec.size), str(count)]
        assert cells(page, expected[0]) == expected
    episodes = sum(part.returns.size for part in rows)
    steps = sum(int(part.lengths.sum()) for part in rows)
    ended, finite = (sum(int(getattr(part, name).sum()) for part in rows) for name in ("terminated", "finite"))
    assert f"- {episodes} episodes, 2 to 3 a policy" in page
    assert f"- {steps:,} control steps; an episode has 1 to 10, {steps / episodes:.1f} on average" in page
    assert f"- {100 * ended / episodes:.2f} % ended in a terminal state" in page
    assert f"finite in {100 * finite / episodes:.2f} % of them" in page
    assert content_hash(open_dataset(toy)) == report.content_hash
    assert f"`{report.content_hash}`" in page
    assert "| 3 | 100 |" in page  # probing states and the rows that have actions in them
    assert (report.rows, seen[0], seen[-1]) == (135, (0, 3), (3, 3))


def test_front_matter_is_what_the_hub_expects(toy):
    write_card(toy, license="odbl-1.0", name="my-set", title='Toy: "policies" #1', url="https://example.org/toy")
    page = (toy / README).read_text()
    values = front_matter(page)
    assert values == {
        "license": "odbl",
        "pretty_name": 'Toy: "policies" #1',
        "task_categories": ["reinforcement-learning"],
        "tags": ["reinforcement-learning", "policy-conditioned-value-functions", "zarr", "toy"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "rows", "data_files": "rows.parquet"}],
    }
    assert_tame(page)
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        return
    assert yaml.safe_load(page.split("---\n")[1]) == values


def test_size_categories_and_licences():
    limits = {999: "n<1K", 1000: "1K<n<10K", 99_999: "10K<n<100K", 10**6: "1M<n<10M", 10**13: "10B<n<100B"}
    assert {rows: size_category(rows) for rows in limits} == limits
    assert (licence("cc-by-4.0").spdx, licence("GPL-3.0-only").hub) == ("CC-BY-4.0", "gpl-3.0")
    with pytest.raises(ConfigError, match=r"'CC-BY' is not an SPDX identifier of this list; did you mean CC-BY-"):
        licence("CC-BY")
    with pytest.raises(ConfigError, match="common ones are CC-BY-4.0"):
        licence("proprietary\n---")


def test_hashes_are_those_that_sha256sum_gives(toy):
    report = write_card(toy, url="https://example.org/toy", authors=["Ada Lovelace"])
    value = json.loads((toy / CROISSANT).read_text())
    assert value["@type"] == "sc:Dataset"
    assert value["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert value["license"] == "https://spdx.org/licenses/CC-BY-4.0"
    assert (value["version"], value["creator"][0]["name"]) == ("1.3.0", "Ada Lovelace")
    assert value["citeAs"].startswith("@misc{toy-")
    objects = [item for item in value["distribution"] if item["@type"] == "cr:FileObject"]
    command = ["sha256sum", *(item["contentUrl"] for item in objects)]
    lines = subprocess.run(command, cwd=toy, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    assert [line.split("  ") for line in lines] == [[item["sha256"], item["contentUrl"]] for item in objects]
    assert all(item["contentSize"] == f"{(toy / item['contentUrl']).stat().st_size} B" for item in objects)
    there = {str(path.relative_to(toy)) for path in toy.rglob("*") if path.is_file()}
    inside = {name for name in there if name.count("/") > 1 or name.endswith("0.json")} | {"zarr.json"}
    assert {item["contentUrl"] for item in objects} == inside | {f"commits/{n:08d}.json" for n in range(3)}
    assert report.files_listed == report.files_all == len(objects)
    fields = value["recordSet"][0]["field"]
    assert [field["name"] for field in fields] == [name for name in COLUMNS if name != "discounted_returns"]
    assert {field["name"]: field["dataType"] for field in fields}["finite"] == "sc:Boolean"
    assert set(MEANING) == set(COLUMNS)


def test_only_live_files_are_described_and_long_lists_are_bounded(toy):
    before = len(live_files(open_dataset(toy)))
    with Writer.open(toy, ENV) as writer:
        writer.commit(build(100, 5, probes=3), {})
        writer.commit(build(100, 6, probes=3), {})
    assert compact(toy).parts_after < 5
    dataset = open_dataset(toy)
    files = live_files(dataset)
    assert {file.path.split("/")[1] for file in files if file.path.startswith("parts/")} == {
        part.entry.id for part in dataset.parts
    }
    assert before < len(files)
    few = listed_files(files, 6)
    assert len(few) == 6
    assert [file for file in files if file in few] == few
    last = f"commits/{len(dataset.commits) - 1:08d}.json"
    assert {"zarr.json", last} <= {file.path for file in few}
    left = [file.size for file in files if file not in few]
    assert min(file.size for file in few if file.path.startswith("parts/")) >= max(left)


def test_a_newcomer_can_run_what_the_readme_says(toy, rows, monkeypatch, capsys):
    report = write_card(toy)
    monkeypatch.chdir(toy.parent)
    blocks = [token.content for token in tokens((toy / README).read_text()) if token.info == "python"]
    ours, plain = {}, {}
    exec(blocks[0], ours)
    assert ours["params"].tobytes() == np.concatenate([part.params for part in rows[:2]]).tobytes()
    assert f"float32 [{len(ours['params'])}, {ours['params'].shape[1]}]" in blocks[0]
    assert ours["returns"].shape == (130,)
    exec(blocks[1], plain)
    assert [values.tobytes() for values in plain["params"]] == [part.params.tobytes() for part in rows]
    assert [policy["size"] for policy in plain["policies"]] == [part.spec.size for part in rows]
    exec(blocks[2], {})
    assert capsys.readouterr().out.strip() == report.content_hash


def test_nothing_private_is_published(toy, tmp_path):
    write_card(toy, out=tmp_path / "card")
    for name in (README, CROISSANT):
        text = (tmp_path / "card" / name).read_text()
        assert not re.search("alice|secret-host|/home|sets/", text)
        assert str(tmp_path) not in text
    page = (tmp_path / "card" / README).read_text()
    command = "epvf-data collect --out toy.zarr --set 'bases=[\"b.st\"]'"
    assert f"- `{command}` (135 rows)" in page  # three equal commands in one line
    assert "Seeds: 0, 1" in page
    assert "`numpy 2.3.0 and 2.4.0`" in page
    assert "- `backend toy, device GPU of ~, dtype float32` (135 rows)" in page


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["a", "--out=/home/bob/y.zarr", "../bob/z"], "a --out=y.zarr z"),
        (["s3://bucket/key/z.zarr?token=abc", "https://me:pw@h/home/bob"], "'…/z.zarr' '…/~'"),
        (["--token", "abc", "--api-key=zz", "--port", "1"], "--token … '--api-key=…' --port 1"),
        (["me@host:/data/x", "10.0.0.1:1234", "/home/bob", "file:///home/bob/"], "… … '~' '~'"),
        (["C:\\Users\\me\\d.zarr", "/home/John Smith/my data", "//server/share/x"], "d.zarr 'my data' x"),
        (["--set", "lr=1e-3", "scale=[0.3, 3.0]", "a/b.st,c/d.st"], "--set lr=1e-3 'scale=[0.3, 3.0]' b.st,d.st"),
        (["x" * 201, "y"], "… y"),
        (["z" * 150] * 20, " ".join([*["z" * 150] * 13, "…"])),
    ],
)
def test_commands_lose_what_is_private(words, shown):
    assert public_command(words) == shown


def test_other_text_keeps_what_is_not():
    assert public("NVIDIA H100 / MIG 1g") == "NVIDIA H100 / MIG 1g"
    assert public("float32, 2.4.6") == "float32, 2.4.6"


def test_origins_inside_a_merged_data_set_are_told(tmp_path):
    inner = {"provenance": said(["epvf-data", "collect", "--seed", "3"], seed=3), "rows": 10}
    outer = {"command": ["epvf-data", "merge", "/a/b.zarr"], "origins": [inner, {"provenance": 1}, "odd"], "seed": "x"}
    with Writer.open(tmp_path / "m.zarr", ENV) as writer:
        writer.commit(build(12), outer)
        writer.commit(build(3, 1), {"command": "text", "versions": [1], "origins": {"a": 1}})
    page = Path(write_card(tmp_path / "m.zarr").files[0]).read_text()
    assert "- `epvf-data merge b.zarr` (12 rows)\n- `epvf-data collect --seed 3` (10 rows)" in page
    assert "Seeds: 3\n" in page


@pytest.fixture
def nasty(tmp_path):
    env = replace(ENV, name=NASTY[1] + NASTY[0], version=NASTY[5])
    path = tmp_path / "na`sty <b> $x 'q'.zarr"
    rows = replace(build(60, sources=NASTY, probes=2), simulation={"device": NASTY[3], "backend": NASTY[0]})
    with Writer.open(path, env) as writer:
        writer.commit(rows, {"command": [*NASTY], "versions": {word: word for word in NASTY}, "seed": True})
    return path


def test_hostile_names_break_nothing(nasty):
    write_card(nasty, authors=[*NASTY], url="https://example.org/toy")
    page = (nasty / README).read_text()
    assert_tame(page)
    values = front_matter(page)
    assert values["license"] == "cc-by-4.0"
    assert "\n" not in values["pretty_name"]
    assert not re.search("[\u202e\u2028\u0085\x1b\x00]", page)
    text = (nasty / CROISSANT).read_text()
    assert "<" not in text
    assert json.loads(text)["license"] == "https://spdx.org/licenses/CC-BY-4.0"
    entry = next(token.content for token in tokens(page) if token.info == "bibtex")
    assert entry.count("@misc") == 1
    assert entry.count("{") == entry.count("}")
    assert validate(nasty, deep=True) == []


@given(st.text(max_size=80))
def test_any_text_stays_text(text):
    inline = MarkdownIt("commonmark").enable("table")
    for markdown in (f"- {code(text)} (rows)", f"a {prose(text)} b"):
        children = [child.type for token in inline.parse(markdown) for child in (token.children or [])]
        assert set(children) <= {"text", "code_inline"}, markdown
    table = inline.parse(f"| a | b |\n| --- | --- |\n| {code(text)} | 1 |")
    assert [token.type for token in table].count("td_open") == 2
    assert [token.content for token in table if token.type == "inline"][-1] == "1"
    assert json.loads(quoted(text)) == one_line(text)
    assert one_line(text).isprintable()
    assert not set(latex(text)) & set("{}`~^@")
    entry = bibtex(text, text, [text, text], "2026-01-01", None)
    assert len(entry.split("\n")) == 5
    assert entry.count("{") == entry.count("}") == 5


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_names_give_a_tame_page(shared_facts, first, second):
    facts = replace(
        shared_facts,
        env=replace(ENV, name=first, version=second),
        returns={first: np.arange(3.0), second + "x": np.arange(2.0)},
        origins=replace(shared_facts.origins, commands={one_line(second): 3}, devices={one_line(first): 3}),
    )
    entry = bibtex(first, second, [first], "2026-01-01", None)
    labels = Labels("n", first or "x", code(first), (licence("MIT"),), (second,), entry, None, "2026-01-01")
    page = readme(facts, labels, second or "x")
    assert_tame(page)
    assert front_matter(page)["pretty_name"] == one_line(first or "x")


@pytest.fixture(scope="module")
def shared_facts(tmp_path_factory):
    path = tmp_path_factory.mktemp("facts") / "f.zarr"
    with Writer.open(path, ENV) as writer:
        writer.commit(build(5), {})
    return gather(open_dataset(path))


def test_a_card_inside_the_data_set_is_welcome_and_can_be_renewed(toy):
    first = write_card(toy)
    assert validate(toy, deep=True) == []
    digests = {name: hashlib.sha256((toy / name).read_bytes()).hexdigest() for name in (README, CROISSANT, PICTURE)}
    assert write_card(toy) == first
    assert digests == {name: hashlib.sha256((toy / name).read_bytes()).hexdigest() for name in digests}
    assert {path.name for path in (toy / "staging").iterdir()} == {"zarr.json"}
    assert (toy / PICTURE).read_bytes().startswith(b"\x89PNG\r\n")
    with Writer.open(toy, ENV) as writer:
        writer.commit(build(7, 9), {})
    assert write_card(toy).rows == first.rows + 7
    assert validate(toy, deep=True) == []


def test_files_of_other_people_are_not_replaced(toy, tmp_path):
    target = tmp_path / "project"
    target.mkdir()
    (target / README).write_text("# My project\n")
    with pytest.raises(DatasetError, match=r"README.md is there and was not written by this command"):
        write_card(toy, out=target)
    assert (target / README).read_text() == "# My project\n"
    (target / README).unlink()
    (target / PICTURE).write_bytes(b"mine")
    with pytest.raises(DatasetError, match=r"returns.png is there"):
        write_card(toy, out=target)
    (target / PICTURE).unlink()
    (tmp_path / "elsewhere").write_text(MARK)
    (target / README).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"README.md is there"):
        write_card(toy, out=target)
    assert (tmp_path / "elsewhere").read_text() == MARK


def test_mistakes_give_one_sentence(toy, tmp_path):
    with Writer.open(tmp_path / "empty.zarr", ENV):
        pass
    with pytest.raises(DatasetError, match="holds no rows yet"):
        write_card(tmp_path / "empty.zarr")
    with pytest.raises(ConfigError, match="not an SPDX identifier"):
        write_card(toy, license="mine")
    for url in ("javascript:alert(1)", "https://a b", "https://a/`", "https://a/>x", ""):
        with pytest.raises(ConfigError, match="the url is"):
            write_card(toy, url=url)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="writing the card in .* failed"):
        write_card(toy, out=tmp_path / "file")
    assert not (toy / README).exists()


class TestLicences:
    """A card made again, or one of data sets that were put together, neither replaces nor drops one."""

    def sets(self, folder, *names):
        for number, name in enumerate(names):
            with Writer.open(folder / f"{number}.zarr", ENV) as writer:
                writer.commit(build(9, number), {})
            if name is not None:
                write_card(folder / f"{number}.zarr", license=name)
        return [folder / f"{number}.zarr" for number in range(len(names))]

    def test_a_card_made_again_keeps_it(self, tmp_path):
        (path,) = self.sets(tmp_path, "CC-BY-NC-4.0")
        assert write_card(path, title="again").licences == ("CC-BY-NC-4.0",)
        assert front_matter((path / README).read_text())["license"] == "cc-by-nc-4.0"
        before = (path / README).read_bytes()
        with pytest.raises(DatasetError, match=r"0.zarr is under CC-BY-NC-4\.0, as its card .* add --force to put it"):
            write_card(path, license="MIT")
        assert (path / README).read_bytes() == before
        assert write_card(path, license="cc-by-nc-4.0").licences == ("CC-BY-NC-4.0",)
        assert write_card(path, license="MIT", force=True).licences == ("MIT",)
        assert write_card(path).licences == ("MIT",)
        assert of_card(path) == ("MIT",)
        for name in ("GPL-3.0-only", "GPL-3.0-or-later"):  # the hub has one name for both
            write_card(path, license=name, force=True)
            assert write_card(path).licences == (name,)

    def test_nothing_is_said_of_it_at_first(self, tmp_path):
        (path,) = self.sets(tmp_path, None)
        assert of_card(path) == ()
        assert write_card(path, out=tmp_path / "card").licences == ("CC-BY-4.0",)
        assert write_card(path, out=tmp_path / "other", license="MIT").licences == ("MIT",)
        assert write_card(path, out=tmp_path / "other").licences == ("MIT",)  # a card outside is kept as well

    def test_a_merge_lists_all(self, tmp_path):
        paths = self.sets(tmp_path, "CC-BY-NC-4.0", "ODbL-1.0", None)
        report = merge(paths, tmp_path / "m.zarr")
        assert report.licences == ("CC-BY-NC-4.0", "ODbL-1.0")
        with pytest.raises(DatasetError, match=r"is under CC-BY-NC-4\.0, ODbL-1\.0"):
            write_card(tmp_path / "m.zarr", license="CC-BY-4.0")
        for _ in range(2):
            assert write_card(tmp_path / "m.zarr").licences == report.licences
        page, value = (tmp_path / "m.zarr" / name for name in (README, CROISSANT))
        assert front_matter(page.read_text())["license"] == ["cc-by-nc-4.0", "odbl"]
        links = [token.attrs["href"] for token in tokens(page.read_text()) if token.type == "link_open"]
        links.remove("rows.parquet")
        assert links == json.loads(value.read_text())["license"]
        assert links == [f"https://spdx.org/licenses/{name}" for name in report.licences]
        write_card(tmp_path / "m.zarr", license="MIT", force=True)
        assert "came from data sets under `CC-BY-NC-4.0`, `ODbL-1.0`." in page.read_text()

    def test_every_way_from_data_set_to_data_set(self, tmp_path):
        """Also through sets without a card, compaction and HDF5."""
        paths = self.sets(tmp_path, "CC-BY-NC-4.0", "ODbL-1.0")
        merge(paths, tmp_path / "m.zarr")
        compact(tmp_path / "m.zarr")
        made = {name: tmp_path / f"{name}.zarr" for name in ("filter", "sample", "train", "test", "hdf5", "merge")}
        filter_rows(tmp_path / "m.zarr", made["filter"], "return > -1e9")
        sample(made["filter"], made["sample"], 12)
        split(made["sample"], made["train"], made["test"], by="rows", test_fraction=0.5)
        export_hdf5(made["train"], tmp_path / "a.h5")
        import_hdf5(tmp_path / "a.h5", made["hdf5"])
        merge([made["hdf5"], made["test"]], made["merge"])
        for path in made.values():
            assert open_dataset(path).licences == ("CC-BY-NC-4.0", "ODbL-1.0"), path
        assert write_card(made["merge"]).licences == ("CC-BY-NC-4.0", "ODbL-1.0")

    @pytest.mark.parametrize(
        ("front", "expected"),
        [
            ("license: cc-by-sa-4.0", ("CC-BY-SA-4.0",)),
            ("pretty_name: x\nlicense:\n- mit\n- 'apache-2.0'\ntags:\n- cc0-1.0", ("MIT", "Apache-2.0")),
            ("license: [mit, odbl]", ("MIT", "ODbL-1.0")),
            ("license: other", ("other",)),
            ("license: <b>", ()),
            ("tags: []", ()),
        ],
    )
    def test_of_cards_that_people_wrote(self, tmp_path, front, expected):
        (path,) = self.sets(tmp_path, None)
        (path / README).write_text(f"---\n{front}\n---\n# Mine\n")
        assert open_dataset(path).licences == expected
        merge([path], tmp_path / "m.zarr")
        assert write_card(tmp_path / "m.zarr").licences == (expected or ("CC-BY-4.0",))
        assert_tame((tmp_path / "m.zarr" / README).read_text())

    def test_what_strangers_commits_say(self, tmp_path):
        with Writer.open(tmp_path / "s.zarr", ENV) as writer:
            for said in ({"a": 1}, "MIT", [1, *NASTY], [f"A-{number}" for number in range(500)], None):
                writer.commit(build(3), {"licences": said})
        found = open_dataset(tmp_path / "s.zarr").licences
        assert len(found) <= 100
        assert not {*found} & {*NASTY}
        write_card(tmp_path / "s.zarr")
        assert_tame((tmp_path / "s.zarr" / README).read_text())


def test_a_citation_of_ones_own_is_kept(toy):
    own = "@article{ada,\n  title = {A ```title```},\n}"
    write_card(toy, citation=f"\n{own}\x07\n")
    page = (toy / README).read_text()
    assert_tame(page)
    assert next(token.content for token in tokens(page) if token.info == "bibtex") == own + "\n"
    assert json.loads((toy / CROISSANT).read_text())["citeAs"] == own


KILLER = """
import os, signal, sys
from epvf_data.cards import card

calls = int(sys.argv[3])
def deadly(function):
    def call(*arguments, **options):
        global calls
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        calls -= 1
        return function(*arguments, **options)
    return call

for number in range(calls):
    child = os.fork()
    if child == 0:
        calls = number
        out = os.path.join(sys.argv[2], str(number))
        for name in ("open", "write", "fsync", "rename"):
            setattr(os, name, deadly(getattr(os, name)))
        names = (card.PICTURE, card.CROISSANT, card.README)
        card._publish(card.Path(out), {name: name.encode() * 1000 for name in names})
        os._exit(7)
    print(os.waitpid(child, 0)[1])
    if number == 0:  # and once the whole command, at its last step
        child = os.fork()
        if child == 0:
            os.rename = lambda *names, **folders: os.kill(os.getpid(), signal.SIGKILL)
            card.write_card(sys.argv[1])
        print(os.waitpid(child, 0)[1])
"""


def test_a_killed_card_leaves_no_half_file(toy, tmp_path):
    for number in range(30):
        (tmp_path / "out" / str(number)).mkdir(parents=True)
    command = [sys.executable, "-c", KILLER, str(toy), str(tmp_path / "out"), "30"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    killed = output.count("9")
    assert killed > 12  # so many system calls does it make
    assert output.count(str(7 << 8)) == len(output) - killed > 0
    names = (README, CROISSANT, PICTURE)
    for number in range(30):
        there = {path.name for path in (tmp_path / "out" / str(number)).iterdir()}
        assert {name for name in there if not name.startswith(".")} <= set(names)
        for name in there & set(names):
            assert (tmp_path / "out" / str(number) / name).read_bytes() == name.encode() * 1000
        assert README not in there or there == set(names)  # it comes last
    assert not any((toy / name).exists() for name in names)
    assert len(list((toy / "staging").iterdir())) == 4
    assert validate(toy, deep=True) == []
    assert collect_garbage(toy, grace=0.0).staging == 3
    assert write_card(toy).rows == 135


def pixels(picture):
    import io

    from matplotlib.image import imread

    return imread(io.BytesIO(picture), format="png")


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"none": np.array([np.nan, np.inf])},
        {"same": np.full(5, 3.0), "large": np.full(2, 3e38)},
        {"one": np.array([1e30]), "$\\frac{": np.array([1e30])},
        {name: np.arange(float(number + 1)) for number, name in enumerate((*NASTY, "4 others", "5 others"))},
    ],
)
def test_the_picture_can_always_be_drawn(groups):
    image = pixels(encode(draw_returns(NASTY[7], groups)))
    assert image.shape[:2] == (540, 1050)
    assert 0.001 < (image[..., :3].min(-1) < 0.5).mean() < 0.5  # text and axes


def test_the_picture_shows_the_returns_of_each_source(toy, rows, tmp_path):
    groups = returns_by_source(open_dataset(toy))
    assert {name: len(values) for name, values in groups.items()} == {"random": 68, "perturbed": 67}
    assert sum(values.sum() for values in groups.values()) == pytest.approx(
        sum(part.returns.mean(1, dtype=np.float64).sum() for part in rows)
    )
    plot_returns(open_dataset(toy), tmp_path / "r.png")
    picture = (tmp_path / "r.png").read_bytes()
    assert (pixels(picture) != pixels(encode(draw_returns("toy", {"random": groups["random"]})))).any()


def test_quartiles_leave_out_what_is_not_finite():
    values = np.array([3.0, np.nan, 1.0, np.inf, 2.0, -np.inf])
    assert Spread.of(values) == Spread(3, 1.0, 1.5, 2.0, 2.5, 2.0, 3.0)
    assert Spread.of(np.array([np.nan])) is None
