"""Boxes of detectors and trackers: the same people out of every form they come in."""

import io
import json
from argparse import Namespace

import numpy as np
import pandas
import pytest
from PIL import Image

from datasets.jrdb.boxes import read_boxes
from datasets.jrdb.labels import IMAGE_FOLDER
from tests import jrdb_files
from utils.run.errors import CommandError, DataError

FLAGS = {"frame_rate": 15.0, "boxes_size": None, "skip_bad_boxes": False}
# frame number, id, x, y, w, h: two frames one second apart, one person on the seam
PEOPLE = [
    (0, 7, 100, 150, 60, 150),
    (0, 9, 3724, 172, 56, 98),
    (15, 7, 110, 150, 60, 150),
    (15, 9, 3724, 172, 56, 98),
]
RESULTS = "COCO results (image_id is the frame, scores are not used)"
FRAMES = {number: [row for row in PEOPLE if row[0] == number] for number in (0, 15)}


def labels(key: str, ids: bool = True) -> str:
    def record(row):
        return {"label_id": f"pedestrian:{row[1]}" if ids else "person:-1", "box": list(row[2:])}

    return json.dumps(
        {key: {f"{number:06d}.jpg": [record(row) for row in rows] for number, rows in FRAMES.items()}}
    )


def coco() -> str:
    images = [{"id": k, "file_name": f"hall/IMG_{n:04d}.jpg"} for k, n in enumerate(FRAMES)]
    images = [image | {"width": 3760, "height": 480} for image in images]
    people = [{"id": k, "image_id": row[0] // 15, "track_id": row[1], "category_id": 1, "bbox": list(row[2:])}
              for k, row in enumerate(PEOPLE)]  # fmt: skip
    car = {"id": 99, "image_id": 0, "category_id": 3, "bbox": [0, 0, 50, 50]}
    crowd = car | {"id": 98, "category_id": 1, "iscrowd": 1}
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    return json.dumps({"images": images, "annotations": [*people, car, crowd], "categories": categories})


def results(track_id: bool = False) -> str:
    boxes = [{"image_id": row[0], "category_id": 1, "bbox": list(row[2:]), "score": 0.9} for row in PEOPLE]
    tracks = [{"track_id": row[1]} if track_id else {} for row in PEOPLE]
    return json.dumps([box | track for box, track in zip(boxes, tracks, strict=True)])


def csv(columns: str, separator: str = ",", decimals: str = "") -> str:
    table = pandas.DataFrame(PEOPLE, columns=["frame", "id", "x", "y", "w", "h"])
    for names in ("left top right bottom", "x1 y1 x2 y2"):
        edges = table.x, table.y, table.x + table.w, table.y + table.h
        table = table.assign(**dict(zip(names.split(), edges, strict=True)))
    if "bb_left" in columns:  # as MOT names them; x, y, z are metres
        table = table.rename(columns={"x": "bb_left", "y": "bb_top", "w": "bb_width", "h": "bb_height"})
        table["x"] = table["y"] = -1
    if "track_id" in columns:
        table = table.rename(columns={"id": "track_id"}).assign(id=range(4))
    for name in "xywh" if decimals else ():
        table[name] = table[name].astype(str) + decimals
    return table[columns.split(",")].to_csv(index=False, sep=separator)


def kitti(track: bool, frame: int | None = None, sizes: bool = False) -> str:
    rows = PEOPLE if frame is None else FRAMES[frame]
    lines = []
    for time, person, x, y, w, h in rows:
        start = f"{time} {person} " if track else ""
        ends = f"{w} {h}" if sizes else f"{x + w} {y + h}"
        lines.append(f"{start}Pedestrian 0 0 -1.5 {x}.00 {y} {ends} -1 -1 -1 -1 -1 -1 -1 0.9")
    other = f"{'0 3 ' if track else ''}DontCare -1 -1 -10 1 2 30 40 -1 -1 -1 -1 -1 -1 -1"
    return "\n".join([*lines, other])


def mot(separator: str = ",", rest: tuple = (1, -1, -1, -1), form: type = str, people=PEOPLE) -> str:
    return "\n".join(separator.join(map(form, (*row, *rest))) for row in people)


def with_classes(classes: list, extra: str = "", name: str = "category") -> str:
    """A CSV with a class per box, and a column more than anybody asked for."""
    table = pandas.DataFrame([*PEOPLE, (0, 3, 20, 30, 40, 50)], columns=["frame", "id", "x", "y", "w", "h"])
    table = table.assign(**{name: classes}, width=3760, image="a.jpg")
    return table.to_csv(index=False, lineterminator=extra + "\n")


def videos(key: str) -> str:
    """COCO whose ids stand where other tools put them."""
    content = json.loads(coco())
    for entry in content["annotations"]:
        track = {key: entry.pop("track_id", 1)}
        entry |= {"attributes": track} if key == "track_id" else track
    return json.dumps(content)


@pytest.fixture
def read(caplog):
    caplog.set_level("INFO", "run")

    def reader(folder, boxes=None, **rules):
        caplog.clear()
        sequences, folders = read_boxes(folder, boxes, Namespace(**FLAGS | rules))
        return sequences, folders, caplog.text

    return reader


@pytest.mark.parametrize(
    ("text", "form", "ids"),
    [
        (labels("labels"), "JRDB labels", True),
        (
            labels("labels").replace("[{", '[{"label_id": "car:3", "box": [1, 2, 30, 40]}, {'),
            "JRDB labels; left out: 2 of class car",
            True,
        ),
        (labels("detections"), "JRDB detections", True),
        (labels("detections", ids=False), "JRDB detections, without ids: pairs have no past", False),
        (coco(), "COCO", True),
        (coco().replace('"image_id": 1', '"image_id": "1"'), "COCO", True),
        (
            labels("detections").replace("pedestrian:7", "person").replace("pedestrian:9", "Pedestrian"),
            "JRDB detections, without ids: pairs have no past",
            False,
        ),
        (results(), f"{RESULTS}, without ids: pairs have no past", False),
        (results(track_id=True), RESULTS, True),
        (csv("frame,id,x,y,w,h"), "CSV", True),
        (csv("frame,track_id,x1,y1,x2,y2"), "CSV", True),
        (csv("frame,x,y,w,h", ";"), "CSV, without ids: pairs have no past", False),
        (csv("id,frame,x1,y1,x2,y2", "\t"), "CSV", True),
        (csv("frame,id,x,y,w,h", ";", ",0"), "CSV", True),
        ("\ufeff" + csv("frame,id,x,y,w,h"), "CSV", True),
        (mot(), "MOT", True),
        (mot(" "), "MOT", True),
        (mot().replace(",9,", ",10,").replace(",7,", ",9,"), "MOT", True),  # 9 before 10
        (mot(rest=(1, "")), "MOT", True),  # a comma at the end
        (mot(" ", form="{:.8e}".format), "MOT", True),  # as numpy.savetxt writes
        (mot(rest=(1, 1, 0.9)) + "\n0,3,20,30,40,50,1,3,1.0", "MOT", True),  # MOT17: a car
        (with_classes(["person"] * 4 + ["chair"]), "CSV", True),
        (videos("instance_id"), "COCO", True),
        (videos("track_id"), "COCO", True),
        (kitti(track=True), "KITTI tracks", True),
        (kitti(track=True, sizes=True), "KITTI tracks with widths and heights", True),  # CIWT on JRDB
        (mot(rest=(1, 0, 0.9)) + "\n0,3,20,30,40,50,1,2,1.0", "MOT; left out: 1 of class 2", True),  # boxmot
        (mot(rest=(0.9, 1)) + "\n0,3,20,30,40,50,1,4", "MOT; left out: 1 of class 4", True),
        (mot(rest=(1, 1.5, -2, 0)), "MOT", True),  # MOT15: metres
        (mot(";").replace("150", "150,0"), "MOT", True),
        (csv("frame,track_id,left,top,right,bottom"), "CSV", True),
        (csv("frame,id,x,y,w,h").replace("frame,id,x", "Frame Number,TrackId,X"), "CSV", True),
        (csv("frame,id,bb_left,bb_top,bb_width,bb_height,x,y"), "CSV (columns not used: x, y)", True),
        (csv("id,frame,track_id,x,y,w,h"), "CSV (columns not used: id)", True),
        (csv("frame,id,x1,y1,x2,y2").replace("frame,id", "frame_index,tracker_id"), "CSV", True),
        (
            with_classes(["person"] * 4 + ["car"], name="object"),
            "CSV (columns not used: width, image); l",
            True,
        ),
        ("image.name,object_id,box.x,box.y,box.w,box.h" + csv("frame,id,x,y,w,h")[16:], "CSV", True),
        (csv("frame,id,x,y,w,h").replace("7,", "None,").replace("9,", "N/A,"), "CSV, without ids", False),
    ],
)
def test_every_form_gives_the_same_people(tmp_path, read, text, form, ids):
    """Whatever the file is called."""
    path = tmp_path / "whatever.dat"
    path.write_text(text)
    (sequence,), _, said = read(tmp_path, path)
    assert f"{path}: 4 boxes, {form}" in said and "; --frame_rate 15\n" in said
    size = "" if form == "COCO" else "without an image, taken to be 3760x480\n"
    assert said.endswith(size) and len(said.splitlines()) <= 2
    assert sequence.boxes.tolist() == [list(row[2:]) for row in PEOPLE]
    assert sequence.times.tolist() == [0, 15] and sequence.starts.tolist() == [0, 2, 4]
    assert (sequence.width, sequence.height) == (3760, 480) and not sequence.image_found.any()
    assert all(np.diff(sequence.tracks)[::2] > 0), "a frame's people are in the order of their tracks"
    met_again = sequence.tracks[0] == sequence.tracks[2]
    assert met_again == ids and len(sequence.track_names) == (2 if ids else 4)


def test_videos_and_cameras_of_one_file_are_sequences(tmp_path, read):
    """Not one, in which people of different places stand side by side."""
    images = [{"id": k, "video_id": k // 2, "file_name": f"{k:06d}.jpg"} for k in range(4)]
    boxes = [{"image_id": k, "video_id": k // 2, "category_id": 1, "bbox": [9, 8, 60, 150]} for k in range(4)]
    videos = [{"id": 0, "name": "hall"}, {"id": 1, "name": "lab"}]
    rows = "".join(f"{video},{frame},9,8,60,150\n" for video in ("hall", "lab") for frame in (0, 1))
    texts = {
        "coco": json.dumps({"videos": videos, "images": images, "annotations": boxes}),
        "results": json.dumps(boxes),
        "video": "video_id,frame,x,y,w,h\n" + rows,
        "scene": "scene_id,frame,x,y,w,h\n" + rows,
        "camera": "camera,frame,x,y,w,h\n" + rows,
        "clip": "Clip,frame,x,y,w,h\n" + rows,
        "both": "seq,camera,frame,x,y,w,h\n" + rows.replace("hall", "1,hall").replace("lab", "1,lab"),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        named = {"results": ["0", "1"], "both": ["1/hall", "1/lab"]}.get(name, ["hall", "lab"])
        assert [(s.name, len(s.boxes)) for s in read(tmp_path, tmp_path / name)[0]] == [(n, 2) for n in named]
    for name in ("hall", "lab"):
        (tmp_path / "boxes" / name / "label_2").mkdir(parents=True)
        (tmp_path / "boxes" / name / "label_2" / "000015.txt").write_text(kitti(track=False, frame=15))
    sequences, *_ = read(tmp_path, tmp_path / "boxes")
    assert [(s.name, len(s.boxes)) for s in sequences] == [("hall/label_2", 2), ("lab/label_2", 2)]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("form", ["labels", "COCO", "CSV", "MOT", "2:1"])
def test_corners_that_are_called_widths_are_refused(tmp_path, read, form, skip):
    rows = [(frame, i, x, 150, x + 60, 300) for frame in (0, 15) for i, x in enumerate((100, 900, 3724))]
    records = {f"{frame}.jpg": [{"label_id": str(i), "box": box} for f, i, *box in rows if f == frame]
               for frame in (0, 15)}  # fmt: skip
    text = {
        "labels": json.dumps({"labels": records}),
        "COCO": json.dumps([{"image_id": f, "category_id": 1, "bbox": box} for f, _, *box in rows]),
        "CSV": "frame,id,x,y,w,h\n" + mot(rest=(), people=rows),
        "MOT": mot(people=rows),
        "2:1": mot(people=rows),
    }[form]
    if form == "2:1":  # all of the sphere
        Image.new("L", (3840, 1920)).save(tmp_path / "000000.jpg")
    (tmp_path / "boxes").write_text(text)
    with pytest.raises(DataError, match=r"look like right and lower edges[^\n]*\n.*boxes.*\n.*x1,y1,x2,y2"):
        read(tmp_path, tmp_path / "boxes", skip_bad_boxes=skip)


def test_one_wide_box_at_the_left_edge_is_none_of_two_corners(tmp_path, read):
    rows = [(frame, k, 900 * k, 100, 60, 150) for frame in (0, 15) for k in range(4)]
    (tmp_path / "boxes").write_text(mot(people=rows))
    assert len(read(tmp_path, tmp_path / "boxes")[0][0].boxes) == 8


@pytest.mark.parametrize(("first", "step"), [(0, -1), (2, 1)])
def test_frames_counted_from_another_number_than_images(tmp_path, read, first, step, caplog):
    for number in range(first, first + 4):
        Image.new("L", (3760, 480)).save(tmp_path / f"{number:06d}.jpg")
    boxes = tmp_path / "mot.txt"
    boxes.write_text("".join(f"{frame},1,100,150,60,150,1,-1,-1,-1\n" for frame in range(1, 5)))
    with pytest.raises(
        DataError, match=f"one off.*\n.*frames 1 to 4, images {first} to.*\n.*add {step} to each"
    ):
        read(tmp_path, boxes)
    if first == 0:  # nobody is in the last image
        boxes.write_text(boxes.read_text().rpartition("4,1")[0])
        read(tmp_path, boxes)
        assert "images begin with 0, boxes with 1" in caplog.text


@pytest.mark.parametrize("first", [0, 1, 3])  # DeepSORT begins with the third image
@pytest.mark.parametrize("form", ["mot", "coco"])
def test_frames_that_count_images_numbered_otherwise(tmp_path, read, first, form):
    for number in range(0, 45, 5):
        Image.new("L", (3760, 480)).save(tmp_path / f"{number:06d}.jpg")
    last = 9 if first else 8
    frames, box = range(first, last + 1), [100, 150, 60, 150]
    text = "".join(f"{frame},1,100,150,60,150,1,-1,-1,-1\n" for frame in frames)
    found = [{"image_id": frame, "category_id": 1, "bbox": box} for frame in frames]
    (tmp_path / "boxes").write_text(text if form == "mot" else json.dumps(found))
    told = f"count the images.*\n.*frames {first}, {first + 1}, .* of 9 images\n.*of 0, 5, 10, and 6 more"
    with pytest.raises(DataError, match=told):
        read(tmp_path, tmp_path / "boxes")
    (tmp_path / "boxes").write_text(text.replace("\n", "\n10", 1))  # some frame has a later number
    assert read(tmp_path, tmp_path / "boxes")[0][0].image_found.sum() == (first == 0) + 1


def test_a_folder_holds_a_sequence_or_a_frame_in_each_file(tmp_path, read):
    boxes = tmp_path / "boxes"
    for name in ("hall", "aula"):
        (boxes / name).mkdir(parents=True)
        (boxes / name / "000030.txt").write_text("")  # nobody was found
        for frame in FRAMES:
            (boxes / name / f"{frame:06d}.txt").write_text(kitti(track=False, frame=frame))
    sequences, _, said = read(tmp_path, boxes)
    assert "8 boxes, KITTI detections, without ids" in said
    assert [s.name for s in sequences] == ["aula", "hall"] and sequences[0].times.tolist() == [0, 15, 30]
    assert all(s.boxes.tolist() == [list(row[2:]) for row in PEOPLE] for s in sequences)
    (frame,), *_ = read(tmp_path, boxes / "hall" / "000015.txt")
    assert frame.times.tolist() == [15] and len(frame.boxes) == 2
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    for name in ("hall", "aula"):
        (tracks / f"{name}.txt").write_text(mot())
    assert [s.name for s in read(tmp_path, tracks)[0]] == ["aula", "hall"]
    (boxes / "foyer").symlink_to(boxes / "hall" / "..", target_is_directory=True)  # itself: each folder once
    (tracks / "far").symlink_to((tmp_path / "elsewhere").resolve(), target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lab.txt").write_text(mot())
    assert [s.name for s in read(tmp_path, boxes)[0]] == ["aula", "hall"]
    assert [s.name for s in read(tmp_path, tracks)[0]] == ["aula", "hall", "lab"]


@pytest.mark.parametrize("form", ["labels", "results", "CSV", "MOT"])
def test_files_of_one_frame_each_are_the_sequence_of_their_folder(tmp_path, read, form):
    """Not sequences of one frame each, in which nobody has a past."""
    everything, boxes = json.loads(labels("labels"))["labels"], json.loads(results(track_id=True))
    for number, rows in FRAMES.items():
        name = f"{number:06d}"
        text = {
            "labels": json.dumps({"labels": {f"{name}.jpg": everything[f"{name}.jpg"]}}),
            "results": json.dumps([box for box in boxes if box["image_id"] == number]),
            "CSV": "frame,id,x,y,w,h\n" + mot(rest=(), people=rows),
            "MOT": mot(people=rows),
        }[form]
        for place in ("hall", "aula"):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / f"{name}{'.txt' if form == 'MOT' else '.json'}").write_text(text)
    for place, names in {"": ["aula", "hall"], "hall": ["hall"]}.items():
        sequences, *_ = read(tmp_path / place, tmp_path / place)
        assert [s.name for s in sequences] == names
        assert all(s.times.tolist() == [0, 15] and len(s.track_names) == 2 for s in sequences)


def test_classes_of_cvats_mot_are_those_of_its_labels(tmp_path, read):
    (tmp_path / "hall" / "gt").mkdir(parents=True)
    (tmp_path / "hall/gt/labels.txt").write_text("car\ncat\nPerson\n")
    rows = mot(rest=(1, 3, 1.0)) + "\n0,3,20,30,40,50,1,1,1.0"
    (tmp_path / "hall/gt/gt.txt").write_text(rows)
    for boxes in (tmp_path, tmp_path / "hall/gt/gt.txt"):
        (sequence,), _, said = read(tmp_path, boxes)
        assert len(sequence.boxes) == 4 and "4 boxes, MOT with labels.txt; left out: 1 of class car" in said


def test_the_name_of_an_image_counts_more_than_a_number_beside_it(tmp_path, read):
    table = pandas.read_csv(io.StringIO(csv("frame,id,x,y,w,h"))).assign(frame=[0, 0, 1, 1])
    for name, image in {"a": "{:06d}.jpg", "b": "crop_{:06d}_{}.jpg"}.items():
        names = [image.format(5 * frame, k) for k, frame in enumerate(table["frame"])]
        table.assign(file_name=names).to_csv(tmp_path / name, index=False)
        (sequence,), *_ = read(tmp_path, tmp_path / name)
        assert sequence.times.tolist() == {"a": [0, 5], "b": [0, 1]}[name]


def test_films_are_sequences_without_their_folder_and_ending(tmp_path, read):
    rows = "/data/hall.mp4,0,1,2,30,40\n/data/lab.mp4,0,1,2,30,40\n"
    for header in ("sequence", "video"):
        (tmp_path / "boxes.csv").write_text(f"{header},frame,x,y,w,h\n{rows}")
        assert [sequence.name for sequence in read(tmp_path, tmp_path / "boxes.csv")[0]] == ["hall", "lab"]
    (tmp_path / "boxes.csv").write_text("video,sequence,frame,x,y,w,h\na.mp4,hall,0,1,2,30,40\n")
    assert [sequence.name for sequence in read(tmp_path, tmp_path / "boxes.csv")[0]] == ["hall"]


def test_a_comma_in_a_name_is_not_a_decimal_comma(tmp_path, read):
    (tmp_path / "boxes.csv").write_text("sequence;frame;x;y;w;h\nhall,2019;0;1,5;2;30;40\n")
    (sequence,), *_ = read(tmp_path, tmp_path / "boxes.csv")
    assert sequence.name == "hall,2019" and sequence.boxes.tolist() == [[1.5, 2, 30, 40]]


def test_two_files_may_not_hold_the_same_frame_however_it_is_written(tmp_path, read):
    for name, frame in {"a": "1", "b": "1.0"}.items():
        (tmp_path / f"{name}.csv").write_text(f"sequence,frame,x,y,w,h\nhall,{frame},1,2,30,40\n")
    with pytest.raises(DataError, match="several files of sequence hall"):
        read(tmp_path, tmp_path)


@pytest.mark.parametrize(("one", "other", "people"), [("track:1", "track:2", 2), ("1", "car:2", 1)])
def test_people_are_recognised_by_their_ids(tmp_path, read, one, other, people):
    records = [{"label_id": k, "box": [x, 50, 60, 150]} for x, k in ((10, one), (300, other))]
    (tmp_path / "hall.json").write_text(json.dumps({"labels": {"000000.jpg": records}}))
    assert len(read(tmp_path, tmp_path / "hall.json")[0][0].boxes) == people


def test_kitti_detections_of_jrdbs_toolkit_have_a_column_more(tmp_path, read):
    rows = "Pedestrian 0 1 120 -1.57 {} 1.7 0.5 0.5 2 1 5 0.3 1\n"
    (tmp_path / "000015.txt").write_text(rows.format("100 150 160 300") + rows.format("-1 -1 -1 -1"))
    (sequence,), *_ = read(tmp_path, tmp_path / "000015.txt")
    assert sequence.boxes.tolist() == [[100, 150, 60, 150]]
    (tmp_path / "tracks").write_text(
        "0 1 Pedestrian 0 0 -1 20 150 60 140\n1 1 Pedestrian 0 0 -1 20 150 60 140"
    )
    assert read(tmp_path, tmp_path / "tracks")[0][0].boxes.tolist() == [[20, 150, 60, 140]] * 2


def test_images_of_several_folders_are_several_sequences(tmp_path, read):
    rows = "".join(f"{name}/000015.jpg,9,8,60,150\n" for name in ("hall", "aula"))
    (tmp_path / "boxes.csv").write_text(f"image,x,y,w,h\n{rows}")
    assert [(s.name, len(s.boxes)) for s in read(tmp_path, tmp_path / "boxes.csv")[0]] == [
        ("aula", 1),
        ("hall", 1),
    ]


def test_missing_ids_are_told(tmp_path, read):
    rows = "".join(
        f"{k // 3},{i},{9 * k},100,60,150\n" for k, i in enumerate((1, 2, 3, 2, 3, "", 3, "nan", 4))
    )
    (tmp_path / "some").write_text(f"frame,id,x,y,w,h\n{rows}")
    assert "9 boxes, CSV, 2 without an id; --frame_rate" in read(tmp_path, tmp_path / "some")[2]
    text = "".join(f"{k // 3},{k},{9 * k},100,60,150\n" for k in range(9))  # rows, not tracks
    (tmp_path / "some").write_text(f"frame,id,x,y,w,h\n{text}")
    assert "CSV, no id in two frames: pairs have no past; --frame" in read(tmp_path, tmp_path / "some")[2]


def test_ids_that_are_none_and_people_of_other_names_are_told(tmp_path, read):
    everybody = labels("detections").replace("pedestrian:7", "person:0").replace("pedestrian:9", "person:0")
    (tmp_path / "boxes.json").write_text(everybody)
    with pytest.raises(DataError, match="same id twice in a frame.*\n.*\n.*\n.*if these are not ids, leave"):
        read(tmp_path, tmp_path / "boxes.json")
    for other, level in (("person_fully_visible", "WARNING"), ("car", "INFO")):
        (tmp_path / "boxes").write_text(with_classes(["person"] * 4 + [other]))
        said = read(tmp_path, tmp_path / "boxes")[2]
        assert said.startswith(level) and f"left out: 1 of class {other}" in said


def test_a_frame_without_people_is_a_frame(tmp_path, read):
    content = json.loads(labels("labels"))
    content["labels"] |= {"000030.jpg": [], "000010.jpg": []}
    content["labels"]["000015.jpg"].append(content["labels"]["000015.jpg"][0])  # and an id that is repeated
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    (sequence,), _, said = read(tmp_path, tmp_path / "boxes.json")
    assert "4 boxes, JRDB labels, 1 with an id that is taken in the frame left out;" in said
    assert sequence.times.tolist() == [0, 10, 15, 30] and sequence.starts.tolist() == [0, 2, 2, 4, 4]


def test_a_jrdb_folder_without_labels_is_read_by_its_detections_or_says_what_helps(tmp_path, read):
    with pytest.raises(
        CommandError, match=r"(?s)neither labels nor detections.*found: an empty folder.*pass --boxes"
    ):
        read(tmp_path)
    folder = tmp_path / "detections" / "detections_2d_stitched"
    folder.mkdir(parents=True)
    (folder / "hall.json").write_text(labels("detections", ids=False))
    (sequence,), _, said = read(tmp_path)
    assert sequence.name == "hall" and "JRDB detections" in said and "only" not in said
    people = {"000015.jpg": [jrdb_files.person(1, [9, 8, 60, 150])]}
    jrdb_files.write_labels(tmp_path, "aula", people)
    (sequence,), _, said = read(tmp_path)
    assert sequence.name == "aula" and "_social_stitched is read; for hall.json pass --boxes FOLD" in said


def test_images_are_found_by_the_number_in_their_names(tmp_path, read):
    images = tmp_path / "frames"
    images.mkdir()
    for name in ("cam2_IMG_0000.PNG", "cam2_IMG_0015.PNG"):
        Image.new("RGB", (3760, 480)).save(images / name)
    (tmp_path / "boxes.csv").write_text(csv("frame,id,x,y,w,h"))
    (sequence,), (folder,), _ = read(images, tmp_path / "boxes.csv", frame_rate=30)
    assert sequence.keys == ["cam2_IMG_0000.PNG", "cam2_IMG_0015.PNG"] and sequence.image_found.all()
    assert folder == images and sequence.frame_rate == 30


@pytest.mark.parametrize("folder", ["", "cam2/", "C:\\\\cam2\\\\"])
def test_frames_without_an_image_keep_the_names_that_the_boxes_give(tmp_path, read, folder):
    lines = [f"{folder}IMG_{row[0]:04d}.png,{','.join(map(str, row[1:]))}" for row in PEOPLE]
    (tmp_path / "boxes.csv").write_text("\n".join(["frame,id,x,y,w,h", *lines]))
    (sequence,), _, _ = read(tmp_path, tmp_path / "boxes.csv")
    assert sequence.keys == ["IMG_0000.png", "IMG_0015.png"] and sequence.times.tolist() == [0, 15]
    stamped = "\n".join(f"{row[0]},{','.join(map(str, row[1:]))},17{row[0]:08d}.100.png" for row in PEOPLE)
    (tmp_path / "boxes.csv").write_text(f"frame,id,x,y,w,h,image\n{stamped}")  # times are no numbers
    assert read(tmp_path, tmp_path / "boxes.csv")[0][0].times.tolist() == [0, 15]
    (tmp_path / "boxes.csv").write_text(csv("frame,id,x,y,w,h"))  # numbers: named as in JRDB
    assert read(tmp_path, tmp_path / "boxes.csv")[0][0].keys == ["000000.jpg", "000015.jpg"]


@pytest.mark.parametrize("place", ["hall", "images/image_stitched/hall", "img1", "lab/img1"])
def test_images_are_found_in_the_folder_that_the_file_or_mot_names(tmp_path, read, place):
    (tmp_path / "in" / place).mkdir(parents=True)
    for frame in FRAMES:
        Image.new("L", (3760, 480)).save(tmp_path / "in" / place / f"IMG_{frame:04d}.webp")
    (tmp_path / "lab").write_text(coco() if "hall" in place else mot())
    (sequence,), (folder,), _ = read(tmp_path / "in", tmp_path / "lab")
    assert sequence.image_found.all() and folder == tmp_path / "in" / place
    assert sequence.name == {"img1": "in", "lab/img1": "lab"}.get(place, "hall")


def test_a_single_file_of_a_jrdb_folder_is_the_sequence_of_its_name(tmp_path, read):
    images = tmp_path / "JRDB" / IMAGE_FOLDER
    for sequence in ("hall", "lab"):
        (images / sequence).mkdir(parents=True)
        Image.new("RGB", (3760, 480)).save(images / sequence / "000015.jpg")
    for name, found in {"lab.csv": "lab", "tracks.csv": "JRDB"}.items():
        (tmp_path / name).write_text(csv("frame,id,x,y,w,h"))
        (sequence,), (folder,), _ = read(tmp_path / "JRDB", tmp_path / name)
        assert (sequence.name, sequence.image_found.any(), folder.name) == (found, found == "lab", found)


def test_boxes_for_another_size_are_an_error_or_scaled(tmp_path, read):
    Image.new("RGB", (1880, 240)).save(tmp_path / "IMG_0000.jpg")
    (tmp_path / "coco.json").write_text(coco())
    with pytest.raises(
        DataError, match=r"image is 1880x240, the boxes are for 3760x480\n.*--boxes_size 480 3760"
    ):
        read(tmp_path, tmp_path / "coco.json")
    (sequence,), *_ = read(tmp_path, tmp_path / "coco.json", boxes_size=(480, 3760))
    assert (sequence.width, sequence.height) == (1880, 240)
    assert np.array_equal(sequence.boxes, np.array(PEOPLE)[:, 2:] / 2)
    with pytest.raises(CommandError, match="--boxes_size 3760 480: the height comes first.*1880x240"):
        read(tmp_path, tmp_path / "coco.json", boxes_size=(3760, 480))
    (tmp_path / "boxes.csv").write_text(csv("frame,id,x,y,w,h"))
    with pytest.raises(DataError, match=r"(?s)outside the 1880x240 panorama.*--boxes_size H W"):
        read(tmp_path, tmp_path / "boxes.csv")


@pytest.mark.parametrize("whole", [1, 100])
@pytest.mark.parametrize("with_images", [False, True])
def test_boxes_in_shares_or_percent_are_told_and_scaled(tmp_path, read, caplog, whole, with_images):
    if with_images:
        Image.new("RGB", (3760, 480)).save(tmp_path / "IMG_0000.jpg")
    scale = np.divide(whole, [1, 1, 3760, 480, 3760, 480])
    rows = "\n".join(",".join(map(repr, row)) for row in (PEOPLE * scale).tolist())
    (tmp_path / "boxes.csv").write_text("frame,id,x,y,w,h\n" + rows.replace(f"\n{whole * 15}", "\n15"))
    if whole == 100:
        read(tmp_path, tmp_path / "boxes.csv")
        assert "no box is in the lower half of the 3760x480 panorama" in caplog.text
    (sequence,), *_ = read(tmp_path, tmp_path / "boxes.csv", boxes_size=(whole, whole))
    assert np.allclose(sequence.boxes, np.array(PEOPLE)[:, 2:], atol=0.01)


@pytest.mark.parametrize(  # JRDB's pose files write the width of one camera
    "unknown", ['"width": 0, "height": 0', '"width": -1, "height": "?"', '"width": 752, "height": 480']
)
def test_a_coco_size_that_is_no_size_is_unknown(tmp_path, read, unknown):
    (tmp_path / "coco.json").write_text(coco().replace('"width": 3760, "height": 480', unknown))
    (sequence,), *_ = read(tmp_path, tmp_path / "coco.json")
    assert (sequence.width, sequence.height) == (3760, 480)
    Image.new("RGB", (3760, 480)).save(tmp_path / "IMG_0000.jpg")
    assert np.array_equal(read(tmp_path, tmp_path / "coco.json")[0][0].boxes, sequence.boxes)


def test_width_and_height_beside_corners_may_be_the_images(tmp_path, read):
    Image.new("RGB", (3760, 480)).save(tmp_path / "000000.jpg")
    (tmp_path / "boxes.csv").write_text(
        "filename,width,height,xmin,ymin,xmax,ymax\n0.jpg,1880,240,9,50,40,130\n"
    )
    with pytest.raises(DataError, match="image is 3760x480, the boxes are for 1880x240"):
        read(tmp_path, tmp_path / "boxes.csv")
    (tmp_path / "boxes.csv").write_text(
        "filename,width,height,xmin,ymin,xmax,ymax\n0.jpg,31,80,9,50,40,130\n"
    )
    (sequence,), *_ = read(tmp_path, tmp_path / "boxes.csv")
    assert sequence.boxes.tolist() == [[9, 50, 31, 80]]
    (tmp_path / "boxes.csv").write_text(
        "filename,width,height,xmin,ymin,xmax,ymax\n0.jpg,3760,480,9,50,40,130\n"
    )
    assert "not used" not in read(tmp_path, tmp_path / "boxes.csv")[2]
    with (tmp_path / "boxes.csv").open("a") as file:
        file.write("1.jpg,1880,240,9,50,40,130\n")
    with pytest.raises(DataError, match=r"several sizes.*\n.*1880, 240.*3760, 480.*\n.*--boxes_size H W"):
        read(tmp_path, tmp_path / "boxes.csv")
    (tmp_path / "boxes.csv").write_text("filename,width,height,xmin,ymin,xmax,ymax\n")
    with pytest.raises(DataError, match="no boxes of people"):
        read(tmp_path, tmp_path / "boxes.csv")


def test_every_sequence_has_boxes_of_its_own_size(tmp_path, read):
    images = {"a": (1880, 240), "b": (3760, 480)}
    for name, (width, height) in images.items():
        size = f'"width": {width}, "height": {height}'
        text = coco().replace('"width": 3760, "height": 480', size).replace("hall/", f"{name}/")
        if name == "a":  # people half as large
            text = text.replace("[100, 150, 60, 150]", "[50, 75, 30, 75]")
            text = text.replace("[3724, 172, 56, 98]", "[1862, 86, 28, 49]").replace("[110, ", "[55, ")
        (tmp_path / "boxes").mkdir(exist_ok=True)
        (tmp_path / "boxes" / f"{name}.json").write_text(text)
    sequences, *_ = read(tmp_path, tmp_path / "boxes")
    assert {s.name: (s.width, s.height) for s in sequences} == images
    (tmp_path / "rows.csv").write_text("frame,id,x,y,w,h,width,height\n0,7,50,75,30,75,1880,240\n")
    (sequence,), *_ = read(tmp_path, tmp_path / "rows.csv")
    assert (sequence.width, sequence.height) == (1880, 240)


def test_boxes_over_the_edge_are_wrapped_and_clipped_and_said(tmp_path, read):
    path = tmp_path / "boxes.csv"
    path.write_text("frame,id,x,y,w,h\n0,1,-8.5,-20,60,150\n0,2,10,400,60,100\n0,3,10,900,60,100\n")
    with pytest.raises(DataError, match=r"(?s)outside the 3760x480.*line 4.*--skip_bad_boxes"):
        read(tmp_path, path)
    (sequence,), _, said = read(tmp_path, path, skip_bad_boxes=True)
    assert sequence.boxes.tolist() == [[3751.5, 0, 60, 130], [10, 400, 60, 80]]
    assert "1 wrapped boxes, 2 clipped boxes, 1 skipped boxes" in said
    path.write_text("frame,id,x,y,w,h\n0,3,10,900,60,100\n")
    with pytest.raises(DataError, match=f"a sequence without a person.*\n  {tmp_path.name}"):
        read(tmp_path, path, skip_bad_boxes=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,id,x,y\n0,1,2,3\n", "no column w, h"),
        (
            "frame,id,cx,cy,w,h\n0,1,2,3,4,5\n",
            r"no column x, y in (.*\n)+.*frame,id,x,y,w,h \(x, y: upper left",
        ),
        ("frame,id,x,y,w,h,x\n0,1,2,3,4,5,6\n", "several columns x in"),
        (
            "frame,image,LabelName,x,y,w,h\n0,a,/m/1,2,3,4,5\n0,a,/m/2,2,3,4,5\n",
            "/m/1, /m/2 is called person",
        ),
        ("frame,id,x,y,w,h\n", "no boxes of people in it"),
        ("frame,id,x,y,w,h\n0,1,5000,2,3,4\n", r"outside the 3760x480 panorama[^\n]*\n.*line 2"),
        ("frame,id,x,y,w,h\n0,1,tall,2,3,4\n", r"not four finite numbers[^\n]*\n.*line 2, box \['tall', '2'"),
        ("frame,x1,y1,x2,y2\n0,1,,3,4\n", r"not four finite numbers[^\n]*\n.*line 2, box \['1', '', '3'"),
        ("frame,id,x,y,w,h\n0,1,1,2,0,4\n", r"not positive[^\n]*\n.*line 2"),
        ("frame,id,x1,y1,x2,y2\n0,1,3740,2,40,90\n", r"on the seam, x2 exceeds the width[^\n]*\n.*line 2"),
        ("frame,id,x,y,w,h\nfirst.jpg,1,1,2,3,4\n", r"without a number[^\n]*\n.*line 2, frame 'first.jpg'"),
        (
            "frame,id,x,y,w,h\n0,1,1,2,3,4\n0,1,9,2,3,4\n",
            r"same id twice in a frame(.*\n)*.*line 3, id 1\n.*sequence",
        ),
        (
            "frame,id,x,y,w,h\n0,1,.1,.2,.3,.4\n",
            r"within one pixel, as if in fractions.*--boxes_size 1 1[^\n]*\n.*line 2(.*\n)*.*upper left",
        ),
        ('[{"image_id": 0, "category_id": 1, "box": [1, 2, 3, 4]}]', "no 'bbox'"),  # AlphaPose
        ("0 0.5 0.3 0.1 0.4 0.9", r"'0.5' is not an id; without a header"),
        ("0,1,9,8,60,150\n15,10.5,5.5,40,60,.9", "line 2: '10.5' is not an id; without a header"),  # no ids
        ("1,7,9,8,60,150\n2,7,9\n", r"four finite numbers[^\n]*\n.*line 2, box"),
        ("0 7 Pedestrian 0 0 0 9 8 60 150\n1 7 Pedestrian 0\n", r"four finite numbers[^\n]*\n.*line 2, box"),
        ("frame,id,x,y,w,h\n0,1,1,5,2,5,3,5,4,5\n", "line 2 has more cells than the header"),
        ("frame,x,y,w,h\n1548339400.5,1,2,3,4\n", r"without a number[^\n]*\n(.*\n)*.*--frame_rate"),
        ("frame,x,y,w,h\n1548339400000000000,1,2,3,4\n", "without a number"),
        ("frame,x,y,w,h\n1305031102.175304.png,1,2,3,4\n", "without a number"),  # ROS, TUM
        ("frame,x,y,w,h\n1305031102_175304.png,1,2,3,4\n", "without a number"),
        ("frame,x,y,w,h\ncam_1710151235.008740.jpg,1,2,3,4\n", "without a number"),
        ("frame,x,y,w,h\n2024-03-11_00-15-05.jpg,1,2,3,4\n", "without a number"),
        (
            "frame,x,y,w,h\n15_1.jpg,1,2,3,4\n30_1.jpg,1,2,3,4\n",
            r"two frames with the same number[^\n]*\n.*line 3",
        ),
        (results().replace('"category_id": 1', '"category_id": 62', 1), "none of the classes 1, 62 is"),
        (with_classes([0, 0, 0, 0, 56]), "none of the classes 0, 56 is called person: rename"),
        (mot(rest=(1, 0, 0.9)) + "\n0,3,20,30,40,50,1,1,1.0", "class 0 of COCO but 1 of MOT, and both occur"),
        ("frame,x,y,w,h\n00:00:15,1,2,3,4\n", "without a number"),
        ("filename,x,y,w,h\nhall.mp4,1,2,30,40\n", "filename names films: call it sequence"),
        ("sequence,image,x,y,w,h\ns1,clip.mp4,1,2,30,40\n", "image names films: call it sequence"),
        ("video,image,x,y,w,h\na.mp4,b.mp4,1,2,30,40\n", "image names films: call it sequence"),
        ("frame,x,y,w,h\n-1,1,2,3,4\n", "without a number"),
        (coco().replace('"image_id": 0', '"image_id": 7', 1), "annotation 0: its image_id 7 is not in"),
        (coco().replace("IMG_0015", "IMG_0000"), "several images are called hall/IMG_0000.jpg: put the"),
        ('{"people": []}', "without labels, detections or annotations"),
        ("{", "cannot be read"),
        (labels("labels").replace("000015.jpg", "000000.jpg"), "the key '000000.jpg' stands twice"),
        (
            coco().replace('"bbox": [100, 150, 60, 150]', '"bbox": null'),
            "four finite numbers.*\n.*annotation 0, box None",
        ),
        ('{"labels": {"000015.jpg": {"box": [1, 2, 3, 4]}}}', "frame 000015.jpg: not the record of a person"),
        (
            coco().replace('"category_id": 1', '"category_id": 3'),
            "no boxes of people in it",
        ),  # cars, of a list that has people
        ("", "no boxes of people in it"),
        ('{"labels": {}}', "without labels, detections or annotations"),
        ("hello 3\n", "neither a header nor a row"),
        (f"sequence,frame,x,y,w,h\n{300 * 'a'},1,2,3,30,40\n", "longer than a file system allows"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, read, text, message):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, path)
    assert str(path) in str(error.value) and len(str(error.value).splitlines()) <= 5


def test_frames_without_a_number_are_one_clear_error_beside_images_too(tmp_path, read):
    Image.new("L", (3760, 480)).save(tmp_path / "000015.jpg")
    (tmp_path / "boxes.csv").write_text("frame,x,y,w,h\n10000000015,1,2,30,40\n")
    with pytest.raises(DataError, match=r"without a number[^\n]*\n.*line 2, frame '10000000015'"):
        read(tmp_path, tmp_path / "boxes.csv")


def test_boxes_of_another_camera_are_noticed(tmp_path, read, caplog):
    rows = "".join(f"{frame},{k},{200 * k},450,60,150\n" for frame in (0, 1) for k in range(4))
    (tmp_path / "hall.csv").write_text(f"frame,track_id,x,y,w,h\n{rows}")
    read(tmp_path, tmp_path / "hall.csv")
    assert "8 of 8 boxes leave the 3760x480 panorama (size from no image" in caplog.text
    assert "--boxes_size H W" in caplog.text
    caplog.clear()
    read(tmp_path, tmp_path / "hall.csv", boxes_size=(1080, 1920))
    assert " 1920x1080: left and right edge count as adjacent; if not all around, pad" in caplog.text
    assert "leave the" not in caplog.text
    Image.new("RGB", (1920, 540)).save(tmp_path / "left_0000.png")
    read(tmp_path, tmp_path / "hall.csv")
    assert "8 of 8 boxes leave the 1920x540 panorama (size from " in caplog.text
    Image.new("RGB", (1920, 540)).save(tmp_path / "right_0000.png")
    caplog.clear()
    rows = "".join(f"{frame},{k},{60 * k},300,60,170\n" for frame in (0, 1, 2) for k in range(8))
    (tmp_path / "webcam.csv").write_text(f"frame,track_id,x,y,w,h\n{rows}")
    read(tmp_path / "hall.csv", tmp_path / "webcam.csv")
    assert "no box is in the right half of the 3760x480 panorama (size from no image" in caplog.text
    with pytest.raises(
        DataError, match="two images with the same number[^\n]*\n.*left_0000.png and right_0000.png"
    ):
        read(tmp_path, tmp_path / "hall.csv")


@pytest.mark.parametrize(("boxes_size", "count"), [(None, 90), (None, 40), ((480, 3760), 90), ((1, 1), 90)])
def test_centres_in_place_of_corners_are_noticed(tmp_path, read, caplog, boxes_size, count):
    """Of people on level ground whose height is 1.7 times that of the camera."""
    h = np.linspace(50, 300, count)
    x, w, top = np.linspace(0, 3600, count), h / 3, 250 - h * 0.4
    for y in (top, top + h / 2):
        table = pandas.DataFrame({"frame": 0, "id": range(count), "x": x, "y": y, "w": w, "h": h})
        if boxes_size == (1, 1):
            table[list("xywh")] /= [3760, 480, 3760, 480]
        table.to_csv(tmp_path / "boxes.csv", index=False)
        said = read(tmp_path, tmp_path / "boxes.csv", boxes_size=boxes_size)[2]
        assert ("do not reach higher in the 3760x480" in said) == (y is not top)
        assert ("must be the upper left corner of a box, not its centre" in said) == (y is not top)
    other = "" if boxes_size else "if the boxes are for another size, pass --boxes_size H W "
    assert "boxes leave the" in said and f"): {other}(x, y must be the upper left corner of a box)\n" in said


def test_only_usual_shapes_of_whole_panoramas_are_taken_for_one(tmp_path, read):
    (tmp_path / "boxes").write_text(mot())
    for size in ((3760, 480), (1880, 240), (752, 96), (3840, 1920), (2048, 1023), (4096, 800)):
        Image.new("L", size).save(tmp_path / "000000.png")
        assert "adjacent" not in read(tmp_path, tmp_path / "boxes", boxes_size=(480, 3760))[2]
    for size in ((1242, 375), (2560, 1080), (2560, 720), (1880, 480), (1280, 720), (640, 480)):
        Image.new("L", size).save(tmp_path / "000000.png")
        assert "adjacent" in read(tmp_path, tmp_path / "boxes", boxes_size=(480, 3760))[2]


def test_people_whom_a_detector_cuts_at_the_seam_are_counted(tmp_path, read):
    whole = "0,3700,150,61,150\n0,1,152,60,148\n15,0,150,60,150\n30,3700,150,60,150\n30,0,0,40,90\n"
    cut = "45,3702,150,57,150\n45,0,152,40,148\n60,3720,20,40,100\n60,1,20,30,100\n"
    (tmp_path / "boxes.csv").write_text(f"frame,x,y,w,h\n{whole}")
    assert "seam" not in read(tmp_path, tmp_path / "boxes.csv")[2]
    (tmp_path / "boxes.csv").write_text(f"frame,x,y,w,h\n{whole}{cut}")
    said = read(tmp_path, tmp_path / "boxes.csv")[2]
    assert f"{tmp_path.name}: the seam cuts 2 boxes in two: make one box of the two, x + w beyond" in said


def test_folders_called_alike_are_not_one_sequence(tmp_path, read):
    """Of COCO and of CSV, with the slashes of either system."""
    names = [f"{day}/rgb/IMG_0015.jpg" for day in ("mon", "tue")]
    box = {"category_id": 1, "bbox": [9, 8, 60, 150]}
    images = [{"id": k, "file_name": name.replace("/", "\\")} for k, name in enumerate(names)]
    boxes = [box | {"id": k, "image_id": k} for k in range(2)]
    (tmp_path / "coco").write_text(json.dumps({"images": images, "annotations": boxes}))
    (tmp_path / "csv").write_text("image,x,y,w,h\n" + "".join(f"{name},9,8,60,150\n" for name in names))
    (tmp_path / "tue" / "rgb").mkdir(parents=True)
    Image.new("RGB", (3760, 480)).save(tmp_path / names[1])
    for form in ("coco", "csv"):
        sequences, *_ = read(tmp_path, tmp_path / form)
        assert [(s.name, len(s.boxes)) for s in sequences] == [("mon/rgb", 1), ("tue/rgb", 1)]
        assert [s.image_found.tolist() for s in sequences] == [[False], [True]]


def test_files_of_one_sequence_are_not_joined_without_a_word(tmp_path, read):
    for name in ("MOT-02", "MOT-04"):
        for kind in ("gt", "det"):
            (tmp_path / "boxes" / name / kind).mkdir(parents=True)
        (tmp_path / "boxes" / name / "gt" / "gt.txt").write_text(mot())
    assert [s.name for s in read(tmp_path, tmp_path / "boxes")[0]] == ["MOT-02", "MOT-04"]
    (tmp_path / "boxes/MOT-02/det/det.txt").write_text(mot(people=[(row[0], -1, *row[2:]) for row in PEOPLE]))
    with pytest.raises(
        DataError, match="several files of sequence MOT-02.*\n.*det.txt, .*gt.txt\n.*as SEQUENCE.txt"
    ):
        read(tmp_path, tmp_path / "boxes")
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "MOT-02.txt").write_text(mot())
    assert read(tmp_path / "boxes", tmp_path / "tracks")[1] == [tmp_path / "boxes" / "MOT-02"]
    later = mot(people=[(row[0] + 90, *row[1:]) for row in PEOPLE])
    (tmp_path / "boxes/MOT-02/det/det.txt").write_text(later)
    with pytest.raises(DataError, match="several files of sequence MOT-02"):  # of other frames, too
        read(tmp_path, tmp_path / "boxes")


@pytest.mark.parametrize("content", ["", ",\n"])
def test_an_empty_file_beside_sequences_is_named(tmp_path, read, content):
    (tmp_path / "hall.txt").write_text(mot())
    (tmp_path / "aula.txt").write_text(content)
    with pytest.raises(DataError, match=r"aula.txt: empty.*\n  remove it"):
        read(tmp_path, tmp_path)


def test_endings_and_hidden_files_of_a_folder(tmp_path, read):
    (tmp_path / "HALL.TXT").write_text(mot())
    (tmp_path / "aula.tsv").write_text(csv("frame,id,x,y,w,h", "\t"))
    (tmp_path / "._HALL.TXT").write_bytes(b"\0\5\26\7")
    assert [s.name for s in read(tmp_path, tmp_path)[0]] == ["HALL", "aula"]
