-- A project, a budget and its items for each organisation, found by their natural keys.
INSERT INTO projects (organization_id, code, name, status, starts_on)
SELECT organizations.id, sample.code, sample.name, sample.status::project_status, sample.starts_on::date
FROM (VALUES
    ('obyra', 'OB-001', 'Edificio Las Heras 2450', 'active', '2026-03-02'),
    ('obyra', 'OB-002', 'Nave logística Pilar', 'planning', '2026-10-05'),
    ('patagonia', 'PA-001', 'Casa Lago Gutiérrez', 'active', '2026-05-11')
) AS sample (slug, code, name, status, starts_on)
JOIN organizations USING (slug)
ON CONFLICT (organization_id, code) DO NOTHING;

INSERT INTO budgets (organization_id, project_id, name, currency)
SELECT projects.organization_id, projects.id, sample.name, sample.currency
FROM (VALUES
    ('obyra', 'OB-001', 'Obra gruesa', 'ARS'),
    ('obyra', 'OB-001', 'Instalaciones', 'USD'),
    ('obyra', 'OB-002', 'Movimiento de suelos', 'ARS'),
    ('patagonia', 'PA-001', 'Obra completa', 'ARS')
) AS sample (slug, code, name, currency)
JOIN organizations USING (slug)
JOIN projects ON projects.organization_id = organizations.id AND projects.code = sample.code
ON CONFLICT (project_id, name) DO NOTHING;

INSERT INTO budget_items (organization_id, budget_id, description, unit, quantity, unit_price)
SELECT budgets.organization_id, budgets.id, sample.description, sample.unit, sample.quantity, sample.unit_price
FROM (VALUES
    ('obyra', 'OB-001', 'Obra gruesa', 'Hormigón elaborado H-30', 'm³', 420, 148500.00),
    ('obyra', 'OB-001', 'Obra gruesa', 'Acero ADN 420', 'kg', 38000, 1720.00),
    ('obyra', 'OB-001', 'Obra gruesa', 'Encofrado de losas', 'm²', 2950, 21400.00),
    ('obyra', 'OB-001', 'Instalaciones', 'Tablero general', 'u', 1, 8600.00),
    ('obyra', 'OB-001', 'Instalaciones', 'Montantes sanitarias', 'u', 6, 2150.00),
    ('obyra', 'OB-002', 'Movimiento de suelos', 'Excavación y retiro', 'm³', 5200, 9800.00),
    ('patagonia', 'PA-001', 'Obra completa', 'Mampostería de piedra', 'm²', 310, 96500.00)
) AS sample (slug, code, budget, description, unit, quantity, unit_price)
JOIN organizations USING (slug)
JOIN projects ON projects.organization_id = organizations.id AND projects.code = sample.code
JOIN budgets ON budgets.project_id = projects.id AND budgets.name = sample.budget
ON CONFLICT (budget_id, description) DO NOTHING;
