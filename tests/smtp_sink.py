"""A mail server on 127.0.0.1 that keeps what it is sent (RFC 5321, AUTH PLAIN, STARTTLS), or behaves badly."""

import base64
import email
import email.policy
import socketserver
import ssl
import threading
from email.message import EmailMessage
from types import TracebackType
from typing import Self


class Sink:
    """Inside the block it listens on a free port.

    Args:
        answer: to a recipient; 250 takes it, 550 refuses it, 0 never answers anything, not even a greeting.
        login: (user, password) that it asks for.
        tls: what it encrypts with after STARTTLS.
        delay_s: seconds until it answers once it has a mail.
        hangs_up: it closes the connection at QUIT, without an answer.
    """

    def __init__(
        self,
        answer: int = 250,
        login: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        delay_s: float = 0.0,
        hangs_up: bool = False,
    ) -> None:
        self.answer, self.login, self.tls = answer, login, tls
        self.delay_s, self.hangs_up = delay_s, hangs_up
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.encrypted = False
        self.over = threading.Event()
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    sink._talk(self)
                finally:
                    self.request.close()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _talk(self, talk: socketserver.StreamRequestHandler) -> None:
        if self.answer == 0:
            self.over.wait(30)
            return
        inside = False  # encrypted, or there is no need
        known = self.login is None

        def say(text: str) -> None:
            talk.wfile.write(text.encode() + b"\r\n")

        say("220 sink")
        while line := talk.rfile.readline().decode().strip():
            word = line.split(" ")[0].upper()
            if word == "EHLO":
                offers = ["sink", *(["STARTTLS"] if self.tls and not inside else []), "AUTH PLAIN"]
                for offer in offers[:-1]:
                    say(f"250-{offer}")
                say(f"250 {offers[-1]}")
            elif word == "STARTTLS" and self.tls:
                say("220 go on")
                talk.request = self.tls.wrap_socket(talk.request, server_side=True)
                talk.rfile, talk.wfile = talk.request.makefile("rb"), talk.request.makefile("wb", buffering=0)
                inside = self.encrypted = True
            elif word == "AUTH":
                _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                known = (user, password) == self.login
                say("235 welcome" if known else "535 no")
            elif word == "MAIL":
                say("250 ok" if known else "530 who are you")
            elif word == "RCPT":
                self.recipients.append(line.partition("<")[2].partition(">")[0])
                say(f"{self.answer} as told")
            elif word == "DATA":
                say("354 go on")
                lines = []
                while (text := talk.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(text[1:] if text.startswith(b"..") else text)
                message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                assert isinstance(message, EmailMessage)
                self.mails.append(message)
                self.over.wait(self.delay_s)
                say("250 taken")
            elif word == "QUIT" and self.hangs_up:
                return
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")
