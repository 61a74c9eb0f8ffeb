"""Plots are made of whatever there is, the same from the same figures, and say what they show."""

import pytest
from xllmc.bench.serve.figures import figures
from xllmc.bench.serve.loads import Load
from xllmc.bench.serve.plots import in_flight, save_plots
from xllmc.bench.serve.probe import Server
from xllmc.bench.serve.protocol import Dialect
from xllmc.bench.serve.records import Record
from xllmc.bench.serve.session import Line, Measured, Part
from xllmc.bench.serve.slo import Objective

from tests.bench.serve.made import failed, record, run_of

OBJECTIVES = (Objective("ttft", 0.2), Objective("tpot", 0.05))


def measured(*by_server: dict[Load, list[Record]]) -> Measured:
    servers, parts, lines = [], [], []
    for number, by_load in enumerate(by_server):
        servers.append(Server(f"http://s{number}", "", Dialect("m", False, True, True), ("m",), None, None))
        for load, records in by_load.items():
            found = figures([run_of(records)], load, OBJECTIVES)
            parts.append(Part(number, load, 0, run_of(records)))
            lines.append(Line(number, load, found, (found,)))
    return Measured(tuple(servers), tuple(parts), tuple(lines), False)


def several(ttft: float) -> list[Record]:
    return [record(i, at=i / 4, ttft=ttft * (1 + i % 5)) for i in range(30)]


def test_a_comparison_over_rates_says_what_it_shows(tmp_path):
    sweep = {Load(rate=rate): several(0.01 * rate) for rate in (1, 4, 9)}
    slower = {Load(rate=rate): several(0.1 * rate) for rate in (1, 4, 9)}
    save_plots(measured(sweep, slower), OBJECTIVES, tmp_path, "svg")
    text = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    assert text.keys() == {"latencies", "timeline", "loads"}
    for name, told in {
        "latencies": ("http://s0 (m)", "http://s1 (m)", "9/s", "from the scheduled arrival", "tpot &lt;= 0.05 s"),
        "timeline": ("seconds from the start", "load 4/s", "requests"),
        "loads": ("offered load, requests/s (open loop)", "p99", "goodput", "all that is offered"),
    }.items():
        assert all(words in text[name] for words in told), name


def test_the_same_figures_make_the_same_file(tmp_path):
    found = measured({Load(rate=2): several(0.1)})
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written.append([path.read_bytes() for path in save_plots(found, OBJECTIVES, tmp_path / name, "svg")])
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (measured({Load(concurrency=n): several(0.1) for n in (1, 8)}), {"latencies", "timeline", "loads"}),
        (measured({Load(rate=2): [failed(0, "500"), failed(1, "500")]}), {"timeline"}),
        (
            measured({Load(rate=2): [failed(0, "500")], Load(rate=4): [record(tokens=1)]}),
            {"latencies", "timeline", "loads"},
        ),
        (measured({Load(): []}), {"timeline"}),
        (Measured((), (), (), True), set()),
    ],
)
def test_plots_are_made_of_whatever_there_is(tmp_path, found, names):
    paths = save_plots(found, (), tmp_path, "png")
    assert {path.stem for path in paths} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_requests_in_flight_are_counted_from_their_arrival():
    times, flying = in_flight([record(at=0.0, ttft=2.0, tokens=1), record(at=1.0, ttft=0.5, tokens=1)])
    assert times.tolist() == [0.0, 1.0, 1.5, 2.0] and flying.tolist() == [1, 2, 1, 0]
