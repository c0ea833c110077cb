//! SQLite, in this process: its own small pool, on threads that may block.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cofferdam_core::failure::{Class, EffectState, Failure};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value as Cell, ValueRef};
use rusqlite::{Connection, ErrorCode};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Rows, RowsBuilder, Statement, timeout_failure, values};
use crate::scope::{Marker, Scope};

/// How many steps of the engine pass between looks at the clock.
const STEPS_PER_LOOK: i32 = 1_000;

/// One database file and the connections to it that are open and idle.
pub(crate) struct Sqlite {
    inner: Arc<Inner>,
    slots: Arc<Semaphore>,
}

struct Inner {
    path: PathBuf,
    idle: Mutex<Vec<Line>>,
}

/// One connection, and whether the statement that it prepares is a guest's.
struct Line {
    connection: Connection,
    guest: Arc<AtomicBool>,
}

impl Sqlite {
    pub(super) fn new(url: &str, pool_max: u32) -> Result<Self, String> {
        let path = url.strip_prefix("sqlite:").unwrap_or(url);
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains('?') {
            return Err("write the file after `sqlite:`, without options".to_owned());
        }
        // A database in memory is gone with its connection, so it has just one.
        let pool_max = if path == ":memory:" { 1 } else { pool_max };
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.into(),
                idle: Mutex::default(),
            }),
            slots: Arc::new(Semaphore::new(pool_max as usize)),
        })
    }

    pub(super) async fn query(
        &self,
        scope: &Scope,
        statement: Statement,
        rows_max: u32,
        write: bool,
    ) -> Result<Rows, Failure> {
        self.with_line(scope, move |line, sent| {
            if write {
                line.transaction(sent, |line| line.rows(&statement, rows_max, true))
            } else {
                line.rows(&statement, rows_max, false)
            }
        })
        .await
    }

    pub(super) async fn execute(
        &self,
        scope: &Scope,
        statements: Vec<Statement>,
    ) -> Result<Vec<u32>, Failure> {
        self.with_line(scope, move |line, sent| {
            line.transaction(sent, |line| {
                statements
                    .iter()
                    .map(|statement| line.change(statement))
                    .collect()
            })
        })
        .await
    }

    async fn with_line<T: Send + 'static>(
        &self,
        scope: &Scope,
        work: impl FnOnce(&mut Line, &Marker) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let slots = Arc::clone(&self.slots);
        let permit = tokio::time::timeout(scope.left(), slots.acquire_owned())
            .await
            .map_err(|_| timeout_failure())?
            .map_err(|error| unavailable(error.to_string()))?;
        let (inner, deadline, marks) = (Arc::clone(&self.inner), scope.deadline, scope.marker());
        let done = tokio::task::spawn_blocking(move || {
            let _permit: OwnedSemaphorePermit = permit;
            let mut line = inner.take()?;
            line.limit(deadline)?;
            let result = work(&mut line, &marks);
            inner.idle.lock().push(line);
            result
        });
        done.await.map_err(|error| unavailable(error.to_string()))?
    }
}

impl Inner {
    fn take(&self) -> Result<Line, Failure> {
        if let Some(line) = self.idle.lock().pop() {
            return Ok(line);
        }
        let connection = Connection::open(&self.path).map_err(|error| failure(&error))?;
        Line::new(connection).map_err(|error| failure(&error))
    }
}

impl Line {
    fn new(mut connection: Connection) -> rusqlite::Result<Self> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        let guest = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&guest);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            if asks.load(Ordering::Relaxed) {
                authorize(context.action)
            } else {
                Authorization::Allow
            }
        }))?;
        Ok(Self { connection, guest })
    }

    /// Makes every statement end at the deadline.
    fn limit(&mut self, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.connection
            .busy_timeout(left)
            .map_err(|error| failure(&error))?;
        self.connection
            .progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() >= deadline))
            .map_err(|error| failure(&error))
    }

    /// Runs work in one transaction. What was not committed leaves nothing behind.
    fn transaction<T>(
        &mut self,
        sent: &Marker,
        work: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.control("BEGIN IMMEDIATE")?;
        let result = work(self).and_then(|value| {
            if !sent.mark() {
                return Err(timeout_failure());
            }
            self.control("COMMIT")
                .map(|()| value)
                .map_err(|failure| failure.with_effect(EffectState::None))
        });
        if result.is_err() && !self.connection.is_autocommit() {
            self.control("ROLLBACK")?;
        }
        result
    }

    fn control(&self, text: &str) -> Result<(), Failure> {
        self.connection
            .execute_batch(text)
            .map_err(|error| failure(&error))
    }

    fn change(&mut self, statement: &Statement) -> Result<u32, Failure> {
        let mut prepared = self.prepare(statement)?;
        bind(&mut prepared, &statement.parameters)?;
        // A statement that returns rows has to be read to its end to take effect.
        if prepared.column_count() > 0 {
            let mut rows = prepared.raw_query();
            while rows.next().map_err(|error| failure(&error))?.is_some() {}
            drop(rows);
            return Ok(u32::try_from(self.connection.changes()).unwrap_or(u32::MAX));
        }
        let changed = prepared.raw_execute().map_err(|error| failure(&error))?;
        Ok(u32::try_from(changed).unwrap_or(u32::MAX))
    }

    fn rows(&mut self, statement: &Statement, rows_max: u32, write: bool) -> Result<Rows, Failure> {
        let mut prepared = self.prepare(statement)?;
        if !write && !prepared.readonly() {
            let text = "a query may not write; use execute or execute-returning";
            return Err(Failure::new(Class::InvalidInput, "sql.read-only", text));
        }
        bind(&mut prepared, &statement.parameters)?;
        let names: Vec<String> = prepared.column_names().map(ToOwned::to_owned).collect();
        let mut rows = prepared.raw_query();
        let mut built = RowsBuilder::new(rows_max);
        let mut wanted = true;
        while let Some(row) = rows.next().map_err(|error| failure(&error))? {
            // A statement that writes is read to its end, or it would not be done whole.
            if !wanted && write {
                continue;
            }
            if !wanted {
                break;
            }
            let mut object = Map::new();
            for (index, name) in names.iter().enumerate() {
                let value = row.get_ref(index).map_err(|error| failure(&error))?;
                object.insert(name.clone(), to_json(value));
            }
            wanted = built.push(&object)?;
        }
        Ok(built.finish())
    }

    fn prepare(&self, statement: &Statement) -> Result<rusqlite::Statement<'_>, Failure> {
        self.guest.store(true, Ordering::Relaxed);
        let prepared = self.connection.prepare(&statement.text);
        self.guest.store(false, Ordering::Relaxed);
        prepared.map_err(|error| failure(&error))
    }
}

/// What a guest's statement may do: anything within the one database, and nothing around it.
fn authorize(action: AuthAction<'_>) -> Authorization {
    match action {
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Pragma { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. } => Authorization::Deny,
        AuthAction::Function { function_name }
            if matches!(
                function_name.to_ascii_lowercase().as_str(),
                "load_extension" | "readfile" | "writefile" | "edit" | "fts3_tokenizer"
            ) =>
        {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

/// Binds `$1`, `$2`, … by their names: SQLite numbers them by their order in the text.
fn bind(prepared: &mut rusqlite::Statement<'_>, parameters: &[Value]) -> Result<(), Failure> {
    let wrong = |text: String| Failure::new(Class::InvalidInput, "sql.parameters", text);
    let mut bound = 0;
    for (position, value) in parameters.iter().enumerate() {
        let name = format!("${}", position + 1);
        let index = prepared
            .parameter_index(&name)
            .map_err(|error| failure(&error))?;
        let Some(index) = index else {
            return Err(wrong(format!("the statement has no placeholder {name}")));
        };
        prepared
            .raw_bind_parameter(index, from_json(value))
            .map_err(|error| failure(&error))?;
        bound += 1;
    }
    let wanted = prepared.parameter_count();
    if bound == wanted {
        return Ok(());
    }
    Err(wrong(format!(
        "the statement has {wanted} placeholders, and {bound} parameters came; write them as $1, $2, …"
    )))
}

fn from_json(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(flag) => Cell::Integer((*flag).into()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Cell::Integer(integer),
            (None, Some(real)) => Cell::Real(real),
            (None, None) => Cell::Text(number.to_string()),
        },
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => Cell::Text(value.to_string()),
    }
}

fn to_json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => values::integer(integer),
        ValueRef::Real(real) => values::double(real),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(blob) => values::bytes(blob),
    }
}

fn unavailable(text: String) -> Failure {
    Failure::new(Class::Unavailable, "sql.unavailable", text)
}

fn failure(error: &rusqlite::Error) -> Failure {
    let (class, code) = match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => return timeout_failure(),
        Some(ErrorCode::ConstraintViolation) => match error.sqlite_extended_error_code() {
            // CHECK and NOT NULL: the value itself is wrong.
            Some(275 | 1299) => (Class::InvalidInput, "sql.constraint"),
            _ => (Class::Conflict, "sql.conflict"),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Class::Unavailable, "sql.busy")
        }
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed,
        ) => (Class::Unavailable, "sql.unavailable"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (Class::Internal, "sql.corrupt")
        }
        Some(ErrorCode::AuthorizationForStatementDenied) => (Class::Denied, "sql.denied"),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (Class::Denied, "sql.read-only"),
        Some(_) | None => (Class::InvalidInput, "sql.statement"),
    };
    Failure::new(class, code, error.to_string())
}
