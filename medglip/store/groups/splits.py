"""Training, validation and test: images are joined into groups by all that is known of them, and no group is cut.

Knows keys, equal and similar pixels and declared lineage; knows no labels and no models.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from medglip.errors import DatasetError, InputError
from medglip.store.arrange import rewrite_tables
from medglip.store.groups.duplicates import Progress, joined_with, named_pairs, search
from medglip.store.groups.lineage import KEYS, images_to_group, linked_by_keys
from medglip.store.manifest import bytes_of
from medglip.store.place import Place
from medglip.store.read import Dataset

# What the last split of a dataset chose, and which group keys it joined; beside manifest.json.
NAME = "splits.json"
SHARES = (0.8, 0.1, 0.1)
NEAR = "near duplicates"
_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class SplitPlan:
    """A group and a split for every image of a dataset, and why.

    Attributes:
        salt: Text that was hashed before each group key.
        shares: Of train, val and test; their sum is 1.
        images: One row an image, sorted by id: ``id``, ``dataset``, ``group``, ``split``, ``split_source``, and what the
            dataset says so far: ``group_before``, ``split_before``, ``split_source_before``.
        merged: One row a group that was more than one: ``group``, ``groups`` (how many), ``images``, ``sources``, ``why``.
        conflicts: Official splits that contradict another one of their group: ``id``, ``dataset``, ``group``,
            ``official``, ``split``.
        near: Near duplicates: ``image_a``, ``image_b``, ``distance``, ``correlation``.
        quality: One row a source: ``dataset``, ``images``, ``without_patient`` (nothing says whose they are), ``groups``.
        left_out: What was not compared: ``reason``, ``images``.
    """

    salt: str
    shares: tuple[float, float, float]
    images: pd.DataFrame
    merged: pd.DataFrame
    conflicts: pd.DataFrame
    near: pd.DataFrame
    quality: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def changed(self) -> pd.DataFrame:
        """The images whose split is another one than before: ``id``, ``dataset``, ``group``, ``before``, ``after``."""
        moved = self.images[self.images["split"] != self.images["split_before"]]
        shown = moved[["id", "dataset", "group", "split_before", "split"]]
        return shown.rename(columns={"split_before": "before", "split": "after"}).reset_index(drop=True)

    @property
    def sizes(self) -> pd.DataFrame:
        """Images and groups of each split: ``split``, ``images``, ``share``, ``groups``, ``images_before``."""
        table = self.images.groupby("split").agg(images=("id", "size"), groups=("group", "nunique"))
        table = (
            table.join(self.images["split_before"].value_counts().rename("images_before"), how="outer").fillna(0).astype(int)
        )
        table.insert(1, "share", (table["images"] / max(1, len(self.images))).round(4))
        return table.rename_axis("split").reset_index()


def assign_splits(
    dataset: Dataset,
    salt: str = "",
    shares: Sequence[float] = SHARES,
    *,
    on_progress: Progress | None = None,
) -> SplitPlan:
    """A split for every image such that no group is cut; nothing is written.

    Images are joined by group, patient, study and series key, equal pixels, near duplicates, and what an earlier split
    joined. A group with an official split takes it, ``test`` before ``val`` before ``train``; any other is placed by the
    hash of its key, the same wherever and whenever it is asked.

    Args:
        dataset: An opened dataset.
        salt: Another text gives another division.
        shares: Of train, val and test; not negative, their sum above 0.
        on_progress: Called with the number of images looked at for near duplicates, and their total.

    Raises:
        InputError: the shares are not allowed.
    """
    portions = _portions(shares)
    images = images_to_group(dataset, remembered(dataset.place)["joined"])
    by_keys, flat = linked_by_keys(dataset, images)
    found = search(dataset, images, by_keys, on_progress=on_progress)
    component = joined_with(by_keys, found.pairs)
    group = images.groupby(component)["group"].transform("min") if len(images) else images["group"]
    official = images["split"].where(images["split_source"] == "official")
    split = _decided(group, official, salt, portions)
    stands = official.notna() & (official == split)
    plan = images[["id", "dataset"]].assign(
        group=group, split=split, split_source=np.where(stands, "official", np.where(split == "unassigned", "none", "hash")),
        group_before=images["written"], split_before=images["split"], split_source_before=images["split_source"],
    )  # fmt: skip
    against = plan.assign(official=official)[official.notna() & ~stands]
    left_out = dict(found.left_out)
    if flat:
        left_out["equal pixels of one flat colour"] = int(images["sha256"].isin(flat).sum())
    return SplitPlan(
        salt=salt, shares=portions, images=plan, merged=_merged(images, component, group, found.pairs, flat),
        conflicts=against[["id", "dataset", "group", "official", "split"]].reset_index(drop=True),
        near=named_pairs(images, found.pairs), quality=_quality(images, group),
        left_out=pd.DataFrame({"reason": list(left_out), "images": list(left_out.values())}),
    )  # fmt: skip


def torn_groups(dataset: Dataset, *, looks: bool = True, on_progress: Progress | None = None) -> pd.DataFrame:
    """Groups whose images are in several splits; none after ``apply``.

    Args:
        dataset: An opened dataset.
        looks: Also search for near duplicates in different splits, which reads the pixels of those that may be.
        on_progress: Called with the number of images looked at, and their total.

    Returns:
        Columns ``group``, ``splits`` ("test, train"), ``images`` and ``why`` (the links between splits: group, patient,
        study, series, identical pixels, near duplicates); sorted by group. Unassigned images are in no split.
    """
    images = images_to_group(dataset, remembered(dataset.place)["joined"])
    component, flat = linked_by_keys(dataset, images)
    pairs = pd.DataFrame({"a": [], "b": []}, dtype=np.int64)
    if looks:
        split = pd.factorize(images["split"])[0]
        pairs = search(dataset, images, component, [split], on_progress).pairs
        component = joined_with(component, pairs)
    assigned = images.assign(component=component)[images["split"] != "unassigned"]
    several = assigned.groupby("component")["split"].nunique()
    assigned = assigned[assigned["component"].isin(several.index[several > 1])]
    torn = {number: ", ".join(sorted(set(found))) for number, found in assigned.groupby("component")["split"]}
    why = _reasons(images, component, images["split"], pairs, flat)
    rows = []
    whole = images.assign(component=component)
    whole = whole[whole["component"].isin(list(torn))]
    for number, groups in whole.groupby("component")["group"]:
        rows.append((groups.min(), torn[number], len(groups), ", ".join(why.get(number, ()))))
    return pd.DataFrame(sorted(rows), columns=["group", "splits", "images", "why"])


def apply(dataset: Dataset | str | Path | Place, plan: SplitPlan) -> None:
    """Write a plan into its dataset: groups, splits and their source; images that the plan does not know stay.

    Args:
        dataset: The dataset, its folder or its URL; open it again afterwards.
        plan: From ``assign_splits``.

    Raises:
        DatasetError: the dataset is broken, cannot be written, or changed meanwhile.
    """
    place = dataset.place if isinstance(dataset, Dataset) else Place(dataset)
    before = remembered(place)["joined"]
    stands = dict(zip(plan.images["group_before"], plan.images["group"], strict=True))
    joined = {old: stands.get(new, new) for old, new in before.items()}
    joined |= {old: new for old, new in stands.items() if old and old != new}
    place.write(NAME, bytes_of({"salt": plan.salt, "shares": list(plan.shares), "joined": joined}))
    ids = pa.array(plan.images["id"], pa.string())

    def change(name: str, table: pa.Table) -> pa.Table:
        if name not in ("images", "regions", "texts"):
            return table
        at = pc.index_in(table["id" if name == "images" else "image_id"], value_set=ids)
        for column in ("group", "split", "split_source") if name == "images" else ("split",):
            planned = pa.array(plan.images[column], pa.string()).take(at.combine_chunks())
            number = table.schema.get_field_index(column)
            values = pc.coalesce(planned, table[column].combine_chunks())
            table = table.set_column(number, table.schema.field(number), values)
        return table

    rewrite_tables(place, change)


def remembered(dataset: str | Path | Place) -> dict[str, Any]:
    """What the last split of a dataset chose: ``salt``, ``shares`` and ``joined`` (group key -> the key it has now).

    Args:
        dataset: Its folder or URL.

    Raises:
        DatasetError: the file that says so is broken.
    """
    place = Place(dataset)
    try:
        found = json.loads(place.read(NAME))
        return {"salt": str(found["salt"]), "shares": tuple(found["shares"]), "joined": dict(found["joined"])}
    except FileNotFoundError:
        return {"salt": "", "shares": SHARES, "joined": {}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"Dataset {place.name!r}: {NAME!r} cannot be read ({error!r}); restore it, or remove it and split again."
        ) from error


def share_of(group: str, salt: str = "") -> float:
    """Where a group stands between 0 and 1, the same wherever and whenever it is asked.

    Source: the first 32 bits of SHA-256 as a fraction of 1; without a salt as ``medglip convert`` does it.

    >>> round(share_of("a"), 4), round(share_of("a", "second fold"), 4)
    (0.7914, 0.0749)
    """
    text = f"{salt}|{group}" if salt else group
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _portions(shares: Sequence[float]) -> tuple[float, float, float]:
    values = [float(share) for share in shares]
    total = sum(values)
    if len(values) != 3 or not np.isfinite(values).all() or min(values) < 0 or total <= 0:
        raise InputError(
            f"Shares of train, val and test: found {tuple(shares)!r}; allowed: three numbers, none below 0, not all 0,"
            " for example 80 10 10."
        )
    train, val, test = (value / total for value in values)
    return train, val, test


def _decided(group: pd.Series, official: pd.Series, salt: str, shares: tuple[float, float, float]) -> pd.Series:
    """The split of each image: the group's official one, else by its hash."""
    chosen: dict[str, str] = {}
    ranks = {name: rank for rank, name in enumerate(("test", "val", "train"))}
    named = pd.DataFrame({"group": group, "official": official})
    for key, found in named.dropna().drop_duplicates().itertuples(index=False):
        if found in ranks:
            chosen[key] = min(found, chosen.get(key, found), key=ranks.__getitem__)
    apart = named.assign(kept=official == "unassigned").groupby("group")["kept"].all()
    for key, kept in zip(apart.index.astype(str), apart, strict=True):
        if key not in chosen:
            place = int(np.searchsorted(np.cumsum(shares[:2]), share_of(key, salt), side="right"))
            # rounding may leave a last share of 0 a sliver
            chosen[key] = "unassigned" if kept else _ORDER[place if shares[place] else int(np.argmax(shares))]
    return group.map(chosen).astype("str")


def _reasons(
    images: pd.DataFrame, component: np.ndarray, parts: pd.Series, pairs: pd.DataFrame, flat: set[str]
) -> dict[Any, list[str]]:
    """Component -> the kinds of links that join different ``parts`` in it."""
    why: dict[Any, list[str]] = {}
    table = images.assign(component=component, part=parts)
    for column, name in KEYS.items():
        keyed = table[table[column].notna() & (table[column] != "") & ~(table[column].isin(flat))]
        spread = keyed.groupby(column).agg(parts=("part", "nunique"), component=("component", "first"))
        for number in spread.loc[spread["parts"] > 1, "component"].unique():
            why.setdefault(int(number), []).append(name)
    values = parts.to_numpy()
    crossing = pairs[values[pairs["a"]] != values[pairs["b"]]] if len(pairs) else pairs
    for number in np.unique(component[crossing["a"].to_numpy(np.int64)]):
        why.setdefault(int(number), []).append(NEAR)
    return why


def _merged(images: pd.DataFrame, component: np.ndarray, group: pd.Series, pairs: pd.DataFrame, flat: set[str]) -> pd.DataFrame:
    table = images.assign(component=component, now=group)
    several = table.groupby("component")["group"].nunique()
    table = table[table["component"].isin(several.index[several > 1])]
    joined = table.groupby("component").agg(
        group=("now", "first"), groups=("group", "nunique"), images=("id", "size"),
        sources=("dataset", lambda names: ", ".join(sorted(set(names)))),
    )  # fmt: skip
    why = _reasons(images, component, images["group"], pairs, flat)
    joined = joined.assign(why=[", ".join(why.get(int(number), ())) for number in joined.index.to_list()])
    return joined.sort_values("group", ignore_index=True)


def _quality(images: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    table = images.assign(now=group, alone=images["patient"].isna())
    per = table.groupby("dataset").agg(images=("id", "size"), without_patient=("alone", "sum"), groups=("now", "nunique"))
    return per.reset_index()
