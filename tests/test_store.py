"""The store: what is written is what is read, whole, once, and only what is needed of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mahler.core.runs import place_runs
from mahler.data import calendar, store
from mahler.data.chain import ACTIVITY, QUOTES, Chain
from mahler.schema import CHAIN, ConfigError, Flag, Table, empty

DECEMBER = ("2019-12-30", "2019-12-31")
JANUARY = ("2020-01-02", "2020-01-03")


def chain_table(*rows: tuple[str, str, float], **columns: object) -> Table:
    """A chain of (date, expiry, strike) rows, with plain quotes where `columns` does not say otherwise."""
    table = empty(CHAIN, len(rows))
    for name, values in zip(("date", "expiry", "strike"), zip(*rows, strict=True), strict=True):
        table[name] = np.array(values, dtype=CHAIN[name])
    plain = {"call_bid": 1.0, "call_ask": 1.2, "put_bid": 2.0, "put_ask": 2.2, "call_iv": 0.2, "put_iv": 0.25,
             "delta": 0.4, "underlying": 100.0}
    for name, value in (plain | columns).items():
        table[name] = np.broadcast_to(np.asarray(value, CHAIN[name]), len(rows)).copy()
    return table


def days_of(table: Table) -> tuple[np.datetime64, np.datetime64]:
    return table["date"].min(), table["date"].max()


def write(root: Path, ticker: str, table: Table, *, source: str = "test", max_dte: int | None = None, **more) -> None:
    for year in np.unique(table["date"].astype("datetime64[Y]")):
        mine = table["date"].astype("datetime64[Y]") == year
        part = {name: column[mine] for name, column in table.items()}
        start, end = days_of(part)
        store.write_partition(root, ticker, int(str(year)), part, source=source, max_dte=max_dte, start=start,
                              end=end, **more)


def spread_over(days: tuple[str, ...], strikes: tuple[float, ...] = (90.0, 95.0), expiry: str = "2020-01-17",
                **columns: object) -> Table:
    return chain_table(*((day, expiry, strike) for day in days for strike in strikes), **columns)


def assert_same_chain(left: Chain, right: Chain) -> None:
    for name in ("sessions", "day", *QUOTES, "spot", "contract_start", "contract_expiry", "contract_strike"):
        a, b = getattr(left, name), getattr(right, name)
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert list(left.activity) == list(right.activity) == list(ACTIVITY)
    for name in ACTIVITY:
        assert left.activity[name].dtype == right.activity[name].dtype, name
        np.testing.assert_array_equal(left.activity[name], right.activity[name], err_msg=name)


# ---------------------------------------------------------------------------------------------- writing


def test_the_same_content_gives_the_same_bytes_and_digest_in_any_order_of_rows(tmp_path: Path) -> None:
    table = spread_over(DECEMBER)
    write(tmp_path / "a", "SPY", table)
    write(tmp_path / "b", "SPY", {name: column[::-1] for name, column in table.items()})
    one, other = (store.partition_path(tmp_path / name, "SPY", 2019) for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert store.partition_info(one).digest == store.partition_info(other).digest


def test_negative_zero_and_any_nan_are_the_same_content(tmp_path: Path) -> None:
    odd = np.frombuffer(np.uint32(0x7FC00001).tobytes(), np.float32)[0]        # a NaN with a payload
    write(tmp_path / "a", "SPY", spread_over(DECEMBER, call_bid=0.0, call_iv=np.nan))
    write(tmp_path / "b", "SPY", spread_over(DECEMBER, call_bid=-0.0, call_iv=odd))
    one, other = (store.partition_info(store.partition_path(tmp_path / name, "SPY", 2019)) for name in "ab")
    assert one.digest == other.digest


@pytest.mark.parametrize("column", CHAIN.names)
def test_a_change_of_any_column_changes_the_digest(tmp_path: Path, column: str) -> None:
    table = spread_over(("2019-12-30",))
    changed = table[column].copy()
    changed[0] = {"date": "2019-12-27", "expiry": "2020-02-21", "flags": Flag.GREEKS_CLAMPED,
                  "delta": 0.5}.get(column, 3)
    digests = {store.write_partition(tmp_path, "SPY", 2019, content, source="test", max_dte=None, start="2019-12-01",
                                     end="2019-12-31") for content in (table, table | {column: changed})}
    assert len(digests) == 2


def test_a_crash_between_write_and_rename_leaves_the_old_partition(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    path = store.partition_path(tmp_path, "SPY", 2019)
    before = path.read_bytes()

    def crash(source: Path, target: Path) -> None:
        assert Path(source).stat().st_size > 0, "the new file must be complete before it takes the old one's place"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "SPY", spread_over(DECEMBER, call_bid=0.5))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_partition_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path: Path, monkeypatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, n=name, f=original: (calls.append(n), f(*args)))
    write(tmp_path, "SPY", spread_over(DECEMBER))
    assert calls == ["fsync", "replace"]


def test_what_a_killed_writer_leaves_behind_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    (tmp_path / "ticker=SPY" / ".year=2020.parquet.1234.tmp").write_bytes(b"PAR1 half of it")
    assert list(store.partitions(tmp_path, "SPY")) == [2019]
    assert len(store.scan(tmp_path, ["SPY"], None, None).sessions) == 2


def test_saturday_and_holiday_expirations_move_to_the_session_before_and_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "SPY", chain_table(("2014-01-02", "2014-01-18", 90.0), ("2014-01-02", "2014-04-18", 90.0),
                                       ("2014-01-02", "2014-02-07", 90.0)))
    path = store.partition_path(tmp_path, "SPY", 2014)
    expiries = store.read_partition(path, ["expiry"])["expiry"]
    assert [str(day) for day in expiries] == ["2014-01-17", "2014-02-07", "2014-04-17"]     # 18 April was Good Friday
    assert store.partition_info(path).quality["expiry_normalised"] == 2


def test_beyond_the_calendar_a_weekend_becomes_the_friday_before() -> None:
    days = calendar.last_session_on_or_before(np.array(["2060-01-03", "2060-01-04", "2060-01-05"], "datetime64[D]"))
    assert [str(day) for day in days] == ["2060-01-02", "2060-01-02", "2060-01-05"]


def test_the_calendar_has_the_sessions_of_the_exchange() -> None:
    assert len(calendar.sessions("2007-01-01", "2025-12-31")) == 4780
    assert not calendar.is_session(np.array(["2025-01-09", "2024-12-25", "2024-07-06"], "datetime64[D]")).any()


def test_crossed_quotes_and_missing_asks_are_flagged_and_kept(tmp_path: Path) -> None:
    table = chain_table(*(("2019-12-30", "2020-01-17", strike) for strike in (90.0, 91.0, 92.0, 93.0)),
                        call_bid=[1.0, 1.5, 0.0, np.nan], call_ask=[1.2, 1.2, 0.0, np.nan],
                        put_bid=[3.0, 0.0, 1.0, 1.0], put_ask=[2.0, 0.1, 0.0, 1.0], flags=int(Flag.GREEKS_CLAMPED))
    write(tmp_path, "SPY", table)
    path = store.partition_path(tmp_path, "SPY", 2019)
    assert store.read_partition(path, ["flags"])["flags"].tolist() == [
        Flag.PUT_CROSSED | Flag.GREEKS_CLAMPED, Flag.CALL_CROSSED | Flag.GREEKS_CLAMPED,
        Flag.CALL_NO_ASK | Flag.PUT_NO_ASK | Flag.GREEKS_CLAMPED, Flag.CALL_NO_ASK | Flag.GREEKS_CLAMPED]
    quality = store.partition_info(path).quality
    assert [quality[name] for name in ("call_crossed", "put_crossed", "call_no_ask", "put_no_ask")] == [1, 1, 2, 1]


@pytest.mark.parametrize(("row", "columns", "words"), [
    (("2019-12-30", "2020-01-17", 90.0), {}, ("row 2019-12-30 expiry 2020-01-17 strike 90", "duplicate")),
    (("2018-12-31", "2020-01-17", 95.0), {}, ("date", "2018-12-31", "2019")),
    (("2019-12-30", "2019-12-27", 95.0), {}, ("expiry", "2019-12-27", "on or after the trade date")),
    (("2019-12-30", "2020-01-17", np.nan), {}, ("strike", "nan", "above 0")),
    (("2019-12-30", "2020-01-17", 95.0), {"underlying": 0.0}, ("underlying", "0", "above 0")),
    (("2019-12-30", "2020-01-17", 95.0), {"delta": 1.25}, ("delta", "1.25", "[0, 1]")),
    (("2019-12-30", "2020-01-17", 95.0), {"put_bid": -0.01}, ("quote", "-0.01", "from 0")),
    (("2019-12-30", "2020-01-17", 95.0), {"put_ask": np.inf}, ("quote", "inf")),
    (("NaT", "2020-01-17", 95.0), {}, ("row 1", "date")),
])
def test_rows_that_no_store_may_hold_are_refused_by_name(tmp_path: Path, row, columns, words) -> None:
    table = chain_table(("2019-12-30", "2020-01-17", 90.0), row, **columns)
    with pytest.raises(ConfigError) as error:
        store.write_partition(tmp_path, "SPY", 2019, table, source="test", max_dte=None, start="2019-01-01",
                              end="2019-12-31")
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)
    assert not store.partitions(tmp_path, "SPY")


def test_a_partition_without_rows_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SPY 2019: a partition without rows"):
        store.write_partition(tmp_path, "SPY", 2019, empty(CHAIN), source="test", max_dte=None, start="2019-01-01",
                              end="2019-12-31")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- damage


def test_a_truncated_partition_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    path = store.partition_path(tmp_path, "SPY", 2019)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="year=2019.parquet cannot be read"):
        store.partition_info(path)
    with pytest.raises(ConfigError, match="year=2019.parquet cannot be read"):
        store.scan(tmp_path, ["SPY"], None, None)


def test_a_foreign_parquet_file_is_refused_by_name(tmp_path: Path) -> None:
    path = store.partition_path(tmp_path, "SPY", 2019)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"date": [1], "close": [2.0]}), path)
    with pytest.raises(ConfigError, match="year=2019.parquet is Parquet, but not a partition"):
        store.scan(tmp_path, ["SPY"], None, None)


def test_a_partition_under_another_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    target = store.partition_path(tmp_path, "QQQ", 2019)
    target.parent.mkdir()
    store.partition_path(tmp_path, "SPY", 2019).rename(target)
    with pytest.raises(ConfigError, match="holds SPY 2019: it was moved or renamed"):
        store.scan(tmp_path, ["QQQ"], None, None)


def rewritten(path: Path, change_rows: dict[str, object], change_metadata: dict[str, object]) -> None:
    """Forge a partition: other rows or metadata under the old digest."""
    parquet = pq.ParquetFile(path)
    said = json.loads(parquet.metadata.metadata[b"mahler"]) | change_metadata
    arrow = parquet.read()
    for name, value in change_rows.items():
        arrow = arrow.set_column(arrow.column_names.index(name), name,
                                 pa.array([value] * len(arrow), arrow.schema.field(name).type))
    with pq.ParquetWriter(path, arrow.schema, store_schema=False) as writer:
        writer.write_table(arrow)
        writer.add_key_value_metadata({"mahler": json.dumps(said)})


def test_another_schema_version_is_refused_with_the_valid_one(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    path = store.partition_path(tmp_path, "SPY", 2019)
    rewritten(path, {}, {"schema_version": 99})
    with pytest.raises(ConfigError, match="schema version 99, valid is 1"):
        store.partition_info(path)


def test_rows_that_do_not_match_their_digest_are_found(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    path = store.partition_path(tmp_path, "SPY", 2019)
    assert len(store.read_verified(store.partition_info(path))["strike"]) == 4
    rewritten(path, {"put_bid": 1.99}, {})
    with pytest.raises(ConfigError, match="does not have the content of its digest"):
        store.read_verified(store.partition_info(path))


@pytest.mark.parametrize("column", ["expiry", "strike", "put_bid", "put_volume"])
def test_a_column_that_lacks_a_number_is_refused_in_one_line(tmp_path: Path, column: str) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    path = store.partition_path(tmp_path, "SPY", 2019)
    rewritten(path, {column: None}, {})
    with pytest.raises(ConfigError, match="year=2019.parquet cannot be read as Parquet .* nulls"):
        store.scan(tmp_path, ["SPY"], None, None)["SPY"].activity["put_volume"]


def test_a_flipped_byte_of_a_column_is_refused_when_it_is_read_or_harmless(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))
    path = store.partition_path(tmp_path, "SPY", 2019)
    good, sound = path.read_bytes(), store.scan(tmp_path, ["SPY"], None, None)["SPY"].put_bid
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(CHAIN.names.index("put_bid"))
    refused = 0
    for at in range(chunk.dictionary_page_offset, chunk.dictionary_page_offset + chunk.total_compressed_size):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1:])
        try:
            np.testing.assert_array_equal(store.scan(tmp_path, ["SPY"], None, None)["SPY"].put_bid, sound)
        except ConfigError as error:
            refused += "year=2019.parquet cannot be read" in str(error)
    assert refused > 40       # the others are in the page's statistics, which nobody reads


# ---------------------------------------------------------------------------------------------- reading


def test_a_contract_that_lives_across_the_year_is_one_run_of_rows(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER + JANUARY))
    chain = store.scan(tmp_path, ["SPY"], None, None)["SPY"]
    assert chain.contract_strike.tolist() == [90.0, 95.0]
    assert chain.contract_start.tolist() == [0, 4, 8]
    assert chain.day.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("row_group", [store.ROW_GROUP, 7], ids=["one row group", "runs across row groups"])
def test_a_chain_read_is_the_chain_built_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group: int) -> None:
    monkeypatch.setattr(store, "ROW_GROUP", row_group)
    rng = np.random.default_rng(1)
    days = calendar.sessions("2019-11-01", "2020-02-28")
    keys = [(str(day), expiry, strike) for day in days for expiry in ("2019-12-20", "2020-01-17", "2020-03-20")
            if np.datetime64(expiry) >= day for strike in (90.0, 92.5, 95.0) if rng.random() < 0.7]
    table = chain_table(*keys, put_bid=rng.random(len(keys)), put_ask=1 + rng.random(len(keys)),
                        delta=rng.random(len(keys)), call_volume=rng.integers(0, 99, len(keys)),
                        underlying=100 + rng.random(len(keys)))
    write(tmp_path, "SPY", table)
    chains = store.scan(tmp_path, ["SPY"], "2019-11-15", "2020-02-14")
    assert_same_chain(chains["SPY"], Chain.from_table("SPY", chains.sessions, table))
    assert chains["SPY"] is chains["SPY"]


@pytest.mark.parametrize("start, length", [([-1, 2], [2, 2]), ([0, 3], [2, 2]), ([0], [2])])
def test_runs_that_do_not_fit_are_refused(start: list[int], length: list[int]) -> None:
    rows, out = np.arange(4.0).view(np.uint8), np.empty(4).view(np.uint8)
    with pytest.raises(ValueError, match="fit"):
        place_runs(rows, out, 8, 0, np.array([0, 2]), np.array(length), np.array(start))


def test_the_spot_of_a_day_is_that_of_its_nearest_expiry_where_rows_disagree(tmp_path: Path) -> None:
    table = chain_table(("2019-12-30", "2020-02-21", 90.0), ("2019-12-30", "2020-01-17", 95.0),
                        ("2019-12-30", "2020-01-17", 90.0), underlying=[103.0, 102.0, 101.0])
    write(tmp_path, "SPY", table)
    assert store.scan(tmp_path, ["SPY"], None, None)["SPY"].spot.tolist() == [101.0]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Any chain that the store may hold."""
    days = calendar.sessions("2018-12-20", "2020-01-10")
    expiries = calendar.sessions("2020-01-13", "2020-02-28")
    keys = draw(st.lists(st.tuples(st.integers(0, len(days) - 1), st.integers(0, len(expiries) - 1),
                                   st.sampled_from([0.5, 90.0, 92.5, 4250.0])), min_size=1, max_size=40, unique=True))
    price = st.one_of(st.just(np.nan), st.floats(0, 1e5))
    kinds = {"f8": price, "f4": st.one_of(st.just(np.nan), st.floats(0, 1, width=32)), "i4": st.integers(-1, 2**31 - 1),
             "u1": st.just(0)}
    table = chain_table(*((str(days[d]), str(expiries[e]), k) for d, e, k in keys))
    for name in CHAIN.names[3:]:
        values = st.floats(0.5, 1e5) if name == "underlying" else kinds[CHAIN[name].str[1:]]
        table[name] = np.array(draw(st.lists(values, min_size=len(keys), max_size=len(keys))), CHAIN[name])
    return table


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables())
def test_any_chain_survives_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, table: Table) -> None:
    root = tmp_path_factory.mktemp("store")
    write(root, "SPY", table)
    chain = store.scan(root, ["SPY"], None, None)["SPY"]
    assert_same_chain(chain, Chain.from_table("SPY", chain.sessions, table))
    assert len(chain.day) == len(table["date"])
    assert (np.diff(chain.contract_start) > 0).all()
    contract = np.repeat(np.arange(len(chain.contract_strike)), np.diff(chain.contract_start))
    assert (np.diff(chain.day)[np.diff(contract) == 0] > 0).all()
    keys = list(zip(chain.contract_expiry, chain.contract_strike, strict=True))
    assert keys == sorted(set(keys))
    for path in store.partitions(root, "SPY").values():
        store.read_verified(store.partition_info(path))


def test_sessions_are_those_that_every_ticker_has_and_the_others_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER + JANUARY))
    write(tmp_path, "QQQ", spread_over((DECEMBER[1], *JANUARY, "2020-01-06"), call_bid=0.7))
    chains = store.scan(tmp_path, ["SPY", "QQQ"], None, None)
    assert chains.tickers == ("QQQ", "SPY")
    assert [str(day) for day in chains.sessions] == ["2019-12-31", "2020-01-02", "2020-01-03"]
    assert chains.dropped == {"QQQ": 1, "SPY": 1}
    assert chains["SPY"].day.tolist() == [0, 1, 2] * 2
    assert chains["QQQ"].day.tolist() == [0, 1, 2] * 2


def test_a_year_that_only_one_ticker_has_is_not_opened_for_its_rows(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER + JANUARY))
    write(tmp_path, "QQQ", spread_over(JANUARY))
    chains = store.scan(tmp_path, ["SPY", "QQQ"], None, None)
    assert [info.year for info in chains.partitions["SPY"]] == [2020]
    assert chains["SPY"].day.tolist() == [0, 1] * 2
    assert chains.dropped == {"QQQ": 0, "SPY": 2}


def test_years_of_the_period_that_are_not_in_the_store_are_named(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER + JANUARY))
    assert store.scan(tmp_path, ["SPY"], "2017-01-01", "2020-12-31").years_missing == {"SPY": (2017, 2018)}


def test_the_order_of_tickers_does_not_change_the_fingerprint_and_a_row_does(tmp_path: Path) -> None:
    for ticker in ("SPY", "QQQ"):
        write(tmp_path, ticker, spread_over(DECEMBER + JANUARY))
    one = store.scan(tmp_path, ["SPY", "QQQ"], None, None).fingerprint
    assert store.scan(tmp_path, ["QQQ", "SPY"], None, None).fingerprint == one
    others = {store.scan(tmp_path, ["SPY"], None, None).fingerprint,
              store.scan(tmp_path, ["SPY", "QQQ"], "2019-12-31", None).fingerprint,
              store.scan(tmp_path, ["SPY", "QQQ"], None, None, max_dte=17).fingerprint}
    write(tmp_path, "QQQ", spread_over(JANUARY, put_ask=2.21))
    others.add(store.scan(tmp_path, ["SPY", "QQQ"], None, None).fingerprint)
    assert len(others | {one}) == 5


def test_a_fingerprint_is_found_without_reading_a_row(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER))

    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("rows were read")

    for method in ("read", "read_row_groups", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, method, refuse)
    assert len(store.scan(tmp_path, ["SPY"], None, None).fingerprint) == 64


def test_only_the_columns_and_dates_that_are_needed_are_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(store, "ROW_GROUP", 2)
    early, late = ("2020-01-02", "2020-01-17"), ("2020-11-02", "2020-11-20")
    write(tmp_path, "SPY", chain_table(*((*dates, strike) for dates in (early, late) for strike in (90.0, 95.0))))
    write(tmp_path, "SPY", spread_over(DECEMBER))
    read = []
    original = pq.ParquetFile.read_row_groups

    def recorded(self: pq.ParquetFile, groups: list[int], columns: list[str], **more: object) -> pa.Table:
        read.append((groups, tuple(columns)))
        return original(self, groups, columns, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", recorded)
    chain = store.scan(tmp_path, ["SPY"], "2020-06-01", "2020-12-31")["SPY"]
    assert len(chain.day) == 2
    assert all(groups == [1] for groups, _ in read), "the second row group holds November"
    columns = {name for _, names in read for name in names}
    assert columns == {"date", "expiry", "strike", "underlying", *QUOTES}
    assert not columns & {"gamma", "theta", "vega", "smooth_iv", "flags"}
    assert len(chain.activity["put_volume"]) == 2                           # read now that it is asked for
    assert {name for _, names in read for name in names} == columns | set(ACTIVITY)


def test_what_is_read_late_is_of_the_file_that_was_read_and_no_file_is_held_open_for_it(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/dev/fd"))

    before = open_files()
    write(tmp_path, "SPY", spread_over(DECEMBER))
    chain = store.scan(tmp_path, ["SPY"], None, None)["SPY"]
    assert open_files() <= before
    write(tmp_path, "SPY", spread_over(DECEMBER, put_volume=9))
    with pytest.raises(ConfigError, match="was ingested again while it was read"):
        chain.activity["put_volume"]


def test_a_chain_is_read_without_pandas(tmp_path: Path) -> None:
    """Arrow imports it to make an array, which takes as long as 19 years of a chain."""
    write(tmp_path, "SPY", spread_over(DECEMBER + JANUARY))
    program = ("import sys; from pathlib import Path; from mahler.data import store; "
               "chain = store.scan(Path(sys.argv[1]), ['SPY'], None, None)['SPY']; chain.activity['put_volume']; "
               "print(len(chain.day), 'pandas' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8", "False"]


def test_rows_beyond_max_dte_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "SPY", chain_table(("2019-12-30", "2020-01-17", 90.0), ("2019-12-30", "2020-03-20", 90.0),
                                       ("2019-12-31", "2020-03-20", 90.0)), max_dte=90)
    chains = store.scan(tmp_path, ["SPY"], None, None, max_dte=80)
    assert chains["SPY"].contract_expiry.astype(str).tolist() == ["2020-01-17", "2020-03-20"]
    assert chains["SPY"].day.tolist() == [0, 1]       # 81 and 80 days to March
    assert chains.max_dte == 80
    assert store.scan(tmp_path, ["SPY"], None, None).max_dte == 90


def test_more_dte_than_was_ingested_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER), max_dte=60)
    with pytest.raises(ConfigError, match="rows up to 60 dte, 75 calendar days are needed.*data.max_dte=75"):
        store.scan(tmp_path, ["SPY"], None, None, max_dte=75)


def test_partitions_of_different_max_dte_are_read_up_to_the_smaller(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(("2019-12-31",), expiry="2020-02-21"), max_dte=60)
    write(tmp_path, "SPY", spread_over(("2020-01-02",), expiry="2020-03-20"), max_dte=90)
    chains = store.scan(tmp_path, ["SPY"], None, None)
    assert chains.max_dte == 60
    assert chains["SPY"].contract_expiry.astype(str).tolist() == ["2020-02-21"] * 2
    assert np.isnan(chains["SPY"].spot[1])


def test_what_is_not_in_the_store_is_named_with_what_is_and_the_command(tmp_path: Path) -> None:
    root = tmp_path / "orats"
    write(root, "SPY", spread_over(DECEMBER))
    with pytest.raises(ConfigError, match=r"IWM is not in the store .*orats \(there: SPY\).*mahler ingest data=orats"):
        store.scan(root, ["IWM", "SPY"], None, None)
    with pytest.raises(ConfigError, match=r"SPY has no session from 2007-01-01 to 2018-12-31 .*there: 2019-12-30"):
        store.scan(root, ["SPY"], "2007-01-01", "2018-12-31")
    with pytest.raises(ConfigError, match="there: nothing"):
        store.scan(tmp_path / "synthetic-0123", ["SPY"], None, None)


def test_sources_never_mix(tmp_path: Path) -> None:
    write(tmp_path, "SPY", spread_over(DECEMBER), source="orats")
    write(tmp_path, "SPY", spread_over(JANUARY), source="yahoo")
    with pytest.raises(ConfigError, match="mixes the sources orats, yahoo"):
        store.scan(tmp_path, ["SPY"], None, None)


def test_a_duplicate_in_memory_is_refused_by_name() -> None:
    table = chain_table(*[("2019-12-30", "2020-01-17", 90.0)] * 2)
    with pytest.raises(ConfigError, match="SPY: 2019-12-30 expiry 2020-01-17 strike 90 occurs twice"):
        Chain.from_table("SPY", np.array(["2019-12-30"], "datetime64[D]"), table)


# ---------------------------------------------------------------------------------------------- tables


def test_a_table_of_every_kind_of_column_survives(tmp_path: Path) -> None:
    table = {"date": np.array(["2020-01-02", "NaT"], "datetime64[D]"), "reason": np.array(["stop_loss", None], object),
             "pnl": np.array([1.5, np.nan]), "n": np.array([1, -1], np.int16), "open": np.array([True, False])}
    store.write_table(tmp_path / "deep" / "trades.parquet", table)
    back = store.read_table(tmp_path / "deep" / "trades.parquet")
    assert list(back) == list(table)
    for name, column in table.items():
        assert back[name].dtype == column.dtype, name
        np.testing.assert_array_equal(back[name], column)
        assert back[name].flags.writeable
    assert list(store.read_table(tmp_path / "deep" / "trades.parquet", ["pnl"])) == ["pnl"]


def test_an_empty_table_keeps_its_columns_and_types(tmp_path: Path) -> None:
    empty_columns = {"ticker": np.zeros(0, object), "pnl": np.zeros(0), "day": np.zeros(0, "M8[D]")}
    store.write_table(tmp_path / "t.parquet", empty_columns)
    back = store.read_table(tmp_path / "t.parquet")
    assert {name: column.dtype.str for name, column in back.items()} == {"ticker": "|O", "pnl": "<f8", "day": "<M8[D]"}


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    store.write_table(tmp_path / "t.parquet", {"pnl": np.zeros(1)})
    with pytest.raises(ConfigError, match=r"t.parquet lacks the columns cost \(there: pnl\)"):
        store.read_table(tmp_path / "t.parquet", ["cost"])
