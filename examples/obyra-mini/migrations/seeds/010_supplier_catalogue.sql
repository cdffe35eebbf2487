-- obyra-db: repeatable
-- The shared catalogue of suppliers: this file is its truth, and an edited file may run again.
-- A row that is already as written here is not touched, so a second run changes nothing.
INSERT INTO suppliers (tax_id, name, category) VALUES
    ('30-50001091-2', 'Hormigonera del Plata', 'hormigón'),
    ('30-50004946-0', 'Aceros Rosario', 'acero'),
    ('30-61234567-3', 'Corralón San Martín', 'corralón'),
    ('30-70987654-9', 'Sanitarios Cuyo', 'instalaciones'),
    ('33-71123456-9', 'Maderera Andina', 'madera')
ON CONFLICT (tax_id) DO UPDATE
SET name = excluded.name, category = excluded.category
WHERE (suppliers.name, suppliers.category) IS DISTINCT FROM (excluded.name, excluded.category);
