"""HTTP/1.1 as RFC 9110 and RFC 9112 say it, with a bound and a deadline on everything that comes from a socket."""
