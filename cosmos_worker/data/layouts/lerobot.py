"""The LeRobot layout (formats v2.0, v2.1, v3.0): each episode of one camera is a clip, its task is the caption.

The task of a frame is what the column task_index of the data files says. An episode whose task changes is cut into
clips of one task each. Where an episode lies in a file with others (v3.0), its times in that file say where.

Source: huggingface/lerobot, src/lerobot/datasets/dataset_reader.py: frame i of an episode is the one shown at
from_timestamp + i / fps, its task that of task_index; differs: lerobot ignores the splits of info.json.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path

from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
)
from cosmos_worker.data.layouts.lerobot_info import (
    INFO_FILE,
    LeRobotInfo,
    read_info,
)
from cosmos_worker.data.layouts.lerobot_tables import (
    EPISODES_FILE,
    EPISODES_FOLDER,
    TASKS_FILE,
    TASKS_TABLE,
    Episode,
    Rows,
    read_episodes,
    read_frames,
    read_tasks,
)
from cosmos_worker.data.problems import BadClip, read_caption
from cosmos_worker.data.text_files import brief
from cosmos_worker.errors import DataError
from cosmos_worker.runtime.progress import map_in_threads

CLIP_PATTERNS = (
    INFO_FILE,
    EPISODES_FILE,
    TASKS_FILE,
    TASKS_TABLE,
    f"{EPISODES_FOLDER}/*/*.parquet",
    "data/*/*.parquet",
)
"""Files that say which clips there are, relative to the dataset's root; info.json may name others for the data."""
DataFile = dict[int, Rows] | DataError
"""What a data file has of each episode, or why it cannot be read."""
VIDEO_PATTERNS = ("videos/*/{camera}/*.mp4", "videos/{camera}/*/*.mp4")
"""Video files of a camera, in formats v2 and v3."""
MAX_OFFSET = 0.25
"""Largest distance of an episode's beginning from a frame, in frames. Times that miss the frames by more, such as sums
of rounded durations, do not say which frame is meant; lerobot itself admits a ten-thousandth of a second."""


def list_lerobot(root: Path, camera_name: str | None, num_workers: int = 1) -> Listing:
    """All episodes of a dataset, in the order of their numbers.

    Args:
        root: folder with meta/, data/ and videos/.
        camera_name: feature with the videos, or the end of its name; None = the only one.
        num_workers: data files that are read at the same time.

    Raises:
        DataError: info.json or a list of episodes or tasks is absent or damaged, or most episodes are not listed.
        ConfigError: no such camera, or none is chosen of several.
    """
    info = read_info(root, camera_name)
    tasks = read_tasks(root, info)
    episodes, bad = read_episodes(root, info)
    bad += _missing(episodes, len(bad), info, root)
    bad += _unlisted(root, info, episodes)
    overlapping = _overlapping(episodes, info)
    candidates: list[Candidate] = []
    files = sorted({episode.data for episode in episodes if episode.data is not None})
    found = map_in_threads(
        lambda name: _frames(root, name), files, num_workers, "read-frames", "files"
    )
    frames = dict(zip(files, found, strict=True))
    for episode in episodes:
        try:
            if episode.index in overlapping:
                raise BadClip(episode.source, "annotation_broken", overlapping[episode.index])
            candidates += _clips(episode, info, tasks, frames)
        except BadClip as problem:
            bad.append(problem)
    notes = [f"LeRobot format {info.version}, camera {info.camera}"]
    several = {one.episode for one in candidates if "_frame_" in one.clip_id}
    if several:
        notes.append(
            f"{len(several)} episodes whose task changes are clips of one task each: {len(candidates)} clips of "
            f"{len({one.episode for one in candidates})} episodes"
        )
    return Listing(tuple(candidates), tuple(bad), notes=tuple(notes))


def _frames(root: Path, name: str) -> DataFile:
    try:
        return read_frames(root / name, name)
    except DataError as problem:
        return problem


def _missing(
    episodes: Sequence[Episode], num_bad: int, info: LeRobotInfo, root: Path
) -> list[BadClip]:
    """Episodes that info.json counts and no list has; a broken entry may have been one of them."""
    listed = {episode.index for episode in episodes}
    total = info.total_episodes or 0
    if total > 2 * (len(listed) + num_bad):
        raise DataError(
            f"{root / INFO_FILE}: total_episodes is {total}, {len(listed) + num_bad} are listed; fetch the dataset "
            "again or correct the number"
        )
    absent = [index for index in range(total) if index not in listed][num_bad:]
    return [
        BadClip(INFO_FILE, "episode_missing", f"episode {index} of {total} is listed nowhere")
        for index in absent
    ]


def _unlisted(root: Path, info: LeRobotInfo, episodes: Sequence[Episode]) -> list[BadClip]:
    """Video files of the camera that no episode names."""
    named = {episode.video for episode in episodes}
    patterns = [pattern.format(camera=escape(info.camera)) for pattern in VIDEO_PATTERNS]
    names = {
        path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)
    }
    return [
        BadClip(name, "caption_missing", "no listed episode names this video")
        for name in sorted(names - named)
        if "/." not in name
    ]


def _overlapping(episodes: Sequence[Episode], info: LeRobotInfo) -> dict[int, str]:
    """Episodes whose times in a file are partly those of another: one of the two would show the other's frames."""
    by_file = defaultdict(list)
    for episode in episodes:
        if episode.start_s is not None and episode.end_s is not None:
            by_file[episode.video].append((episode.start_s, episode.end_s, episode.index))
    found = {}
    for video, times in by_file.items():
        latest, owner = 0.0, -1
        for start, end, index in sorted(times):
            if start < latest - 0.5 / info.fps:
                for one, other in ((index, owner), (owner, index)):
                    found[one] = f"episode {one} overlaps with episode {other} in {video}"
            if end > latest:
                latest, owner = end, index
    return found


# --- one episode ------------------------------------------------------------------------------


def _clips(
    episode: Episode,
    info: LeRobotInfo,
    tasks: Mapping[int, object],
    frames: Mapping[str, DataFile],
) -> Iterator[Candidate]:
    """The clips of an episode: one for each stretch of frames with one task."""
    split = info.split_of(episode.index)
    if split is None:
        value = f"episode {episode.index} is in no split of {INFO_FILE}"
        raise BadClip(episode.source, "split_missing", value)
    begin = (episode.start_s or 0.0) * info.fps
    if abs(begin - round(begin)) > MAX_OFFSET:
        value = f"episode {episode.index} begins at {episode.start_s:.6g} s, between frames {int(begin)} and "
        value += f"{int(begin) + 1} of {episode.video} (at {info.fps:g} frames per second)"
        raise BadClip(episode.source, "annotation_broken", value)
    stretches = _stretches(episode, tasks, frames)
    for first, last, text in stretches:
        whole = len(stretches) == 1
        start_s, end_s = episode.start_s, episode.end_s
        if not whole:
            start_s, end_s = (begin + first) / info.fps, (begin + last + 1) / info.fps
        yield Candidate(
            clip_id=f"{split}/{episode.name}" + ("" if whole else f"_frame_{first:06d}"),
            split=split,
            source=episode.source,
            video=episode.video,
            captions=(text,),
            num_frames=last - first + 1,
            start_s=start_s,
            end_s=end_s,
            episode=episode.name,
        )


def _stretches(
    episode: Episode, tasks: Mapping[int, object], frames: Mapping[str, DataFile]
) -> list[tuple[int, int, str]]:
    """First frame, last frame and caption of each stretch with one task."""
    where = f"episode {episode.index}"
    listed = {
        _caption(text, episode.source, f"a task of {where}")
        for text in episode.tasks
        if isinstance(text, str) and text.strip()
    }
    found = frames.get(episode.data or "", DataError("its entry names no data file"))
    if isinstance(found, DataError):
        if len(listed) != 1:
            value = f"{where} has {len(listed)} tasks, and its frames cannot tell which is when: {found}"
            raise BadClip(episode.source, "caption_missing", value)
        return [(0, episode.length - 1, next(iter(listed)))]
    name = episode.data or ""
    rows = found.get(episode.index, Rows(0, ()))
    if rows.length != episode.length:
        value = f"{where} has {episode.length} frames in {episode.source}, here {rows.length}"
        raise BadClip(name, "annotation_mismatch", value)
    if rows.broken:
        raise BadClip(name, "annotation_broken", f"{where}: {rows.broken}")
    texts = {number: _task(tasks, number, name, where) for _, number in rows.runs}
    strange = listed and set(texts.values()) - listed
    if strange:
        value = f"{where}: its frames have the task {brief(sorted(strange)[0])}, which {episode.source} does not list"
        raise BadClip(name, "annotation_mismatch", value)
    cuts: list[tuple[int, str]] = []
    for first, number in rows.runs:
        if not cuts or cuts[-1][1] != texts[number]:  # two tasks may have one text
            cuts.append((first, texts[number]))
    ends = [*(first for first, _ in cuts[1:]), rows.length]
    return [(first, end - 1, text) for (first, text), end in zip(cuts, ends, strict=True)]


def _task(tasks: Mapping[int, object], number: int, name: str, where: str) -> str:
    table = f"task {number} of {where}"
    if number not in tasks:
        raise BadClip(name, "caption_missing", f"{table} is not among the {len(tasks)} tasks")
    return _caption(tasks[number], name, table)


def _caption(text: object, name: str, where: str) -> str:
    if not isinstance(text, str):
        raise BadClip(name, "annotation_broken", f"{where} is {brief(text)}, not a text")
    return read_caption(text, name, where)
