"""Writes the plans of this folder with ibis-substrait, as Feast does for on-demand views in mode `substrait`.

PYTHONPATH=.build/feast-peer-substrait .build/feast-peer/bin/python tests/formats/substrait/make.py
"""

from __future__ import annotations

from pathlib import Path

import ibis
from ibis_substrait.compiler.core import SubstraitCompiler

columns = [("rate", "float64"), ("trips", "int64"), ("city", "string"), ("val", "int64"), ("known", "boolean")]
t = ibis.table(columns, "t")
plans = {
    "computed": t.select(
        plus=t.rate + t.val,
        scaled=t.rate * 2.5 - 1,
        busy=t.trips > 15,
        level=(t.trips > 15).ifelse("high", "low"),
        three=ibis.case().when(t.trips > 15, 1).when(t.trips > 5, 2).else_(3).end(),
        both=(t.trips >= 10) & (t.rate < 0.6),
        either=t.known | (t.trips < 0),
        opposite=~t.known,
        unknown=t.city.isnull(),
        ratio=t.trips.cast("float64") / 3,
        whole=t.rate.cast("int64"),
        text=t.trips.cast("string"),
        twice=t.trips * 2,
        less=-t.trips,
        listed=t.trips.isin([10, 30]),
        nulled=t.trips.nullif(10),
        between=t.trips.between(10, 20),
        lower=t.city.lower(),
        length=t.city.length(),
        has=t.city.contains("ü"),
    ),
    "steps": t.mutate(a=t.trips + 1).mutate(b=ibis._.a * 2).select("city", "b"),
    "filter": t.filter(t.trips > 10),
    "aggregate": t.aggregate(x=t.trips.sum()),
    "unknown": t.select(x=t.city.like("a%")),
}
for name, plan in plans.items():
    path = Path(__file__).with_name(f"{name}.plan")
    path.write_bytes(SubstraitCompiler().compile(plan).SerializeToString())
