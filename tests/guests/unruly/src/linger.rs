//! Requests that the SDK would not send: their timeouts are a day, and they may never end.

use cofferdam_sdk::prelude::*;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, Method, OutgoingRequest, RequestOptions, Scheme};

const DAY_NS: u64 = 24 * 3_600 * 1_000_000_000;

pub(crate) fn linger(authority: &str, upload: bool) -> Result<Empty, Failure> {
    let broken = |what: &str| Failure::internal("unruly.linger", what);
    let request = OutgoingRequest::new(Fields::new());
    let method = if upload { Method::Post } else { Method::Get };
    let set = request
        .set_method(&method)
        .and_then(|()| request.set_scheme(Some(&Scheme::Http)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some("/")));
    set.map_err(|()| broken("the request cannot be made"))?;
    let body = request.body().map_err(|()| broken("no body"))?;
    let options = RequestOptions::new();
    let set = options
        .set_connect_timeout(Some(DAY_NS))
        .and_then(|()| options.set_first_byte_timeout(Some(DAY_NS)))
        .and_then(|()| options.set_between_bytes_timeout(Some(DAY_NS)));
    set.map_err(|()| broken("the timeouts are refused"))?;
    let answer = outgoing_handler::handle(request, Some(options))
        .map_err(|error| broken(&error.to_string()))?;
    // Whatever the host says to it, it goes on.
    if upload {
        let stream = body.write().map_err(|()| broken("no stream"))?;
        loop {
            let _ = stream.blocking_write_and_flush(&[0xA5; 4096]);
        }
    }
    drop(body);
    loop {
        answer.subscribe().block();
        if let Some(Ok(Ok(response))) = answer.get() {
            let body = response.consume().map_err(|()| broken("no body"))?;
            let stream = body.stream().map_err(|()| broken("no stream"))?;
            loop {
                let _ = stream.blocking_read(4096);
            }
        }
    }
}
