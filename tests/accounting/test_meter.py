import json

from accounting.meter import Meter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_steps_add_up_and_pauses_between_them_do_not():
    clock = Clock()
    meter = Meter(clock=clock)
    for _ in range(4):
        clock.now += 50.0  # a validation
        meter.begin()
        clock.now += 2.0
        assert meter.end(samples=8, flop=1000, wait_s=0.5) == 2.0
    rates = meter.rates()
    assert (rates.samples_per_s, rates.flop_per_s, rates.loader_wait) == (4.0, 500.0, 0.25)
    totals = meter.totals()
    assert (totals["time_s"], totals["loader_wait_s"], totals["samples"], totals["flop"]) == (8.0, 2.0, 32, 4000)


def test_a_resumed_meter_goes_on_and_its_rates_begin_anew():
    clock = Clock()
    before = Meter(clock=clock)
    clock.now += 3.0
    before.end(5, 10, 0.0)
    after = Meter(json.loads(json.dumps(before.totals())), clock)
    clock.now += 1.0
    after.end(7, 10, 0.0)
    assert after.rates().samples_per_s == 7.0
    assert (after.totals()["samples"], after.totals()["time_s"]) == (12, 4.0)


def test_what_is_not_measured_is_null_and_each_figure_names_its_source():
    totals = Meter().totals()
    assert totals["energy_j"] is None
    assert totals["sources"]["energy_j"] == "not measured"
    assert set(totals["sources"]) == set(totals) - {"sources"}
    assert Meter(clock=Clock()).rates().samples_per_s == 0.0
