"""Requests for vectors as bytes, written once and sent many times."""

import base64
import json

_BOUNDARY = "benchmark"


def multipart_request(path: str, images: list[bytes], **fields: str) -> bytes:
    """Write a POST with one form part per image (`images`) and per field, ready to be sent."""
    parts = [_part(f'name="{name}"', value.encode()) for name, value in fields.items()]
    head = 'name="images"; filename="photo.jpg"\r\nContent-Type: image/jpeg'
    parts += [_part(head, image) for image in images]
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    return _post(path, f"multipart/form-data; boundary={_BOUNDARY}", body)


def raw_request(path: str, image: bytes) -> bytes:
    """Write a POST whose body is one image, ready to be sent."""
    return _post(path, "image/jpeg", image)


def json_request(path: str, image: bytes, **options: object) -> bytes:
    """Write a POST with one image as base64 in a JSON object, ready to be sent."""
    content = {"image": base64.b64encode(image).decode(), **options}
    return _post(path, "application/json", json.dumps(content).encode())


def text_request(*texts: str) -> bytes:
    """Write a POST to /embed/text with these texts, ready to be sent."""
    return _post("/embed/text", "application/json", json.dumps({"texts": texts}).encode())


def embeddings_request(path: str, image: bytes) -> bytes:
    """Write a POST as OpenAI's clients do, with one image as a data URI, ready to be sent."""
    body = b'{"input": "data:image/jpeg;base64,' + base64.b64encode(image) + b'"}'
    return _post(path, "application/json", body)


def _part(disposition: str, content: bytes) -> bytes:
    head = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + content + b"\r\n"


def _post(path: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
