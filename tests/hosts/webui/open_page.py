"""The host's page as an open browser holds it: what its controls show, what a press sends, what comes back."""

import json
import urllib.parse
import urllib.request
import uuid

import s4s_webui_host as hosts


class Page:
    """One session. Controls are known by elem_id; `shows` is {elem_id: value}, `choices` {elem_id: [value, ...]}."""

    def __init__(self, server: hosts.Server):
        self.server, self.session = server, uuid.uuid4().hex[:10]
        config = server.call("/config")
        self.functions, self.names, self.shows, self.choices = config["dependencies"], {}, {}, {}
        for component in config["components"]:
            props = component.get("props", {})
            self.names[component["id"]] = name = props.get("elem_id") or str(component["id"])
            self._take(name, props)

    def press(self, name: str, event: str = "click") -> None:
        """What a control's event does: its inputs are sent, its outputs taken. Events must need no queue."""
        wanted = next(id_ for id_, known in self.names.items() if known == name)
        for index, function in enumerate(self.functions):
            if _is_for(function, wanted, event) and function.get("backend_fn"):
                self._call(index, function)

    def _call(self, index: int, function: dict) -> None:
        sent = [self.shows.get(self.names[id_]) for id_ in function["inputs"]]
        answer = self.server.call("/run/predict", {"fn_index": function.get("id", index), "data": sent,
                                                   "session_hash": self.session})
        for id_, value in zip(function["outputs"], answer["data"]):
            update = isinstance(value, dict) and value.get("__type__") == "update"
            self._take(self.names[id_], value if update else {"value": value})

    def upload(self, name: str, file) -> None:
        """Drop a file on a control."""
        mark = uuid.uuid4().hex
        head = (f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n")
        body = head.encode() + file.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.port}/upload", body,
                                         {"content-type": f"multipart/form-data; boundary={mark}"})
        [path] = json.load(urllib.request.urlopen(request, timeout=60))
        self.shows[name] = [{"name": path, "path": path, "orig_name": file.name, "data": None, "is_file": True,
                             "meta": {"_type": "gradio.FileData"}}]

    def download(self, name: str) -> bytes:
        """The file that a control offers."""
        shown = self.shows[name]
        shown = shown[0] if isinstance(shown, list) else shown
        address = urllib.parse.quote(shown.get("path") or shown["name"])
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/file={address}", timeout=60) as answer:
            return answer.read()

    def _take(self, name: str, props: dict) -> None:
        if "value" in props:
            self.shows[name] = props["value"]
        if props.get("choices") is not None:
            self.choices[name] = [one[-1] if isinstance(one, (list, tuple)) else one for one in props["choices"]]


def _is_for(function: dict, wanted: int, event: str) -> bool:
    """Gradio 3 names one event apart from its components."""
    if "trigger" in function:
        return function["trigger"] == event and wanted in function["targets"]
    return [wanted, event] in function["targets"]
